"""`memory` in a function.toml: the value changes, every other byte stays."""

import tomllib
from pathlib import Path

import pytest

from sampan.contract.errors import InvalidInputError
from sampan.tuning.setting import write_memory

FULL = b"""#:schema ../../docs/function.schema.json
# memory = 1 is a comment
model = "minilm"
description = '''
memory = 7
'''
\tmemory = 1_769 # MB; one vCPU
[budgets]
memory_mb = 400
[endpoint]
memory = 4096
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "function.toml"


def test_only_the_value_changes(file: Path) -> None:
    file.write_bytes(FULL)
    write_memory(file, 512)
    assert file.read_bytes() == FULL.replace(b"1_769", b"512")
    write_memory(file, 512)
    assert file.read_bytes() == FULL.replace(b"1_769", b"512")
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'# x\nmodel = "m"\n', b'# x\nmodel = "m"\nmemory = 512\n'),
        (b'# x\r\nmodel = "m"\r\n\r\n[endpoint]\r\nmemory = 128\r\n', None),
        (b'model = "m"', b'model = "m"\nmemory = 512\n'),
        (b'"model" = """m\n"""\npython = "3.12"\n', None),
        (b'\xef\xbb\xbfmodel = "m"\n"memory"=0x80\n', b'\xef\xbb\xbfmodel = "m"\n"memory"=512\n'),
    ],
)
def test_a_file_without_it_gets_a_line(file: Path, before: bytes, after: bytes | None) -> None:
    file.write_bytes(before)
    write_memory(file, 512)
    written = file.read_bytes()
    found, had = (tomllib.loads(data.decode("utf-8-sig")) for data in (written, before))
    assert found == {**had, "memory": 512}
    assert after in (None, written)
    if b"\r\n" in before:
        assert b'model = "m"\r\nmemory = 512\r\n\r\n' in written


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.write_bytes(FULL)
    file.symlink_to(real)
    write_memory(file, 512)
    assert file.is_symlink()
    assert b"512" in real.read_bytes()


def test_a_file_that_is_broken_meanwhile(file: Path) -> None:
    file.write_bytes(b"model = \n")
    with pytest.raises(InvalidInputError, match=r"function\.toml:1: this is no TOML"):
        write_memory(file, 512)
    assert file.read_bytes() == b"model = \n"
