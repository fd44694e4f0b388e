"""install.py: wheels from a folder become packages, trimmed, stripped, compiled and normalised; errors in one line."""

import csv
import hashlib
import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from sampan.packaging import install

FILES = {
    "tiny/__init__.py": "VALUE = 42\nNAMES = {'a', 'b', 'c', 'd'}\n\n\ndef double(x):\n    return 'two', 2 * x\n",
    "tiny/old.py": "print 'for another Python'\n",
    "tiny/tests/test_tiny.py": "import tiny\n",
    "tiny/include/tiny.h": "int tiny;\n",
    "tiny/__init__.pyi": "VALUE: int\n",
    "tiny/data.json": "{}\n",
    "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
    "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    "tiny-1.0.dist-info/entry_points.txt": "[console_scripts]\ntiny = tiny:double\n",
    "tiny-1.0.dist-info/licenses/LICENSE": "do as you like\n",
}


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all the index there is."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(folder), "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    return folder


def wheel(folder: Path, tag: str = "py3-none-any") -> Path:
    path = folder / f"tiny-1.0-{tag}.whl"
    record = io.StringIO()
    with ZipFile(path, "w") as archive:
        for name, text in FILES.items():
            archive.writestr(name, text.format(tag=tag) if name.endswith("WHEEL") else text)
            csv.writer(record).writerow((name, "", ""))
        csv.writer(record).writerow(("tiny-1.0.dist-info/RECORD", "", ""))
        archive.writestr("tiny-1.0.dist-info/RECORD", record.getvalue())
    return path


def lock(path: Path, of: Path | None = None, version: str = "1.0") -> Path:
    digest = hashlib.sha256(of.read_bytes()).hexdigest() if of else "0" * 64
    path.write_text(f"tiny=={version} \\\n    --hash=sha256:{digest}\n")
    return path


def tree(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mode & 0o777, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def python(code: str, path: Path) -> str:
    done = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path[:0] = [{str(path)!r}]; {code}"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_installation_has_what_runs_and_nothing_else(wheels: Path, tmp_path: Path):
    target = tmp_path / "target"
    requirement = lock(tmp_path / "lock.txt", wheel(wheels))

    assert install.main(["dependencies", str(target), "--requirement", str(requirement)]) == 0

    info = "tiny-1.0.dist-info"
    assert sorted(tree(target)) == [
        *(f"{info}/METADATA", f"{info}/entry_points.txt", f"{info}/licenses/LICENSE"),
        *("tiny/__init__.pyc", "tiny/data.json", "tiny/old.py"),
    ]
    assert {(mode, time) for _, mode, time in tree(target).values()} == {(0o644, install.EPOCH * 10**9)}
    assert python("import tiny; print(tiny.VALUE, tiny.double(4))", target) == "42 ('two', 8)"


def test_the_same_lock_gives_the_same_bytes(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    requirement = lock(tmp_path / "lock.txt", wheel(wheels))
    for name in "ab":
        monkeypatch.setenv("PYTHONHASHSEED", str(ord(name)))
        command = [sys.executable, install.__file__, "dependencies", str(tmp_path / name)]
        subprocess.run([*command, "--requirement", str(requirement)], check=True, capture_output=True)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize(
    ("options", "target"),
    [
        (("--platform", "manylinux_2_28_x86_64", "--python-version", "3.11"), "Python 3.11 on manylinux_2_28_x86_64"),
        ((), f"Python {sys.version_info[0]}.{sys.version_info[1]} on {os.uname().machine} with "),
    ],
)
def test_a_wheel_without_a_match_is_named_with_its_target(options, target, wheels, tmp_path, capsys):
    requirement = lock(tmp_path / "lock.txt", wheel(wheels, "cp311-cp311-win_amd64"))
    assert install.main(["dependencies", str(tmp_path / "t"), "--requirement", str(requirement), *options]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"install: tiny 1.0 has no wheel for {target}")


def test_another_policy_of_manylinux_is_included(wheels: Path, tmp_path: Path):
    requirement = lock(tmp_path / "lock.txt", wheel(wheels, "cp312-cp312-manylinux2014_aarch64"))
    options = ["--platform", "manylinux_2_34_aarch64", "--python-version", "3.12"]
    assert install.main(["dependencies", str(tmp_path / "t"), "--requirement", str(requirement), *options]) == 0
    assert (tmp_path / "t" / "tiny" / "data.json").exists()


def test_a_changed_wheel_is_refused(wheels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    wheel(wheels)
    requirement = lock(tmp_path / "lock.txt")
    assert install.main(["dependencies", str(tmp_path / "t"), "--requirement", str(requirement)]) == 1
    assert "its hash differs" in capsys.readouterr().err.splitlines()[-1]


def test_no_network_is_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(install, "RETRIES", 1)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    for name in ("PIP_INDEX_URL", "UV_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    requirement = lock(tmp_path / "lock.txt")
    assert install.main(["dependencies", str(tmp_path / "t"), "--requirement", str(requirement)]) == 1
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith("install: the package index cannot be reached after 1 retries (")
    )


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").touch()
    assert install.main(["dependencies", str(tmp_path / "file" / "t"), "--requirement", "x"]) == 1
    assert f"install: {tmp_path / 'file' / 't'} cannot be written" in capsys.readouterr().err


def test_stripping_takes_debug_information_and_nothing_that_runs(tmp_path: Path):
    spec = importlib.util.find_spec("csimdjson")
    assert spec is not None
    assert spec.origin is not None
    original, library = Path(spec.origin), tmp_path / Path(spec.origin).name
    library.write_bytes(original.read_bytes())
    (tmp_path / "plain.so").write_bytes(b"\x7fELF\x02\x01 without debug information")
    (tmp_path / "text.so").write_bytes(b"INPUT(.debug_info\0)")

    install.strip(tmp_path)

    assert library.stat().st_size < original.stat().st_size / 4
    assert python("import csimdjson; print(csimdjson.Parser().parse(b'[1, 2]').as_list())", tmp_path) == "[1, 2]"
    assert (tmp_path / "plain.so").read_bytes() == b"\x7fELF\x02\x01 without debug information"
    assert (tmp_path / "text.so").read_bytes() == b"INPUT(.debug_info\0)"


def test_code_keeps_its_sources_and_gets_bytecode_that_is_never_checked(tmp_path: Path):
    package = tmp_path / "opt" / "mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("VALUE = 1\n")

    assert install.main(["code", str(tmp_path)]) == 0

    cache = Path(importlib.util.cache_from_source(str(package / "__init__.py")))
    assert cache.read_bytes()[4:8] == b"\1\0\0\0"  # PEP 552: by hash, unchecked
    (package / "__init__.py").write_text("VALUE = 2\n")
    assert python("import mine; print(mine.VALUE)", package.parent) == "1"


def test_the_entrypoint_is_written_where_the_base_has_none(wheels: Path, tmp_path: Path):
    requirement, root = lock(tmp_path / "lock.txt", wheel(wheels)), tmp_path / "rootfs"
    command = ["dependencies", str(root / "opt" / "python"), "--requirement", str(requirement)]
    assert install.main([*command, "--entrypoint", str(root / "no-such-entrypoint.sh")]) == 0
    script = root / "no-such-entrypoint.sh"
    assert script.stat().st_mode & 0o777 == 0o755
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (142, "the handler's name must be the only argument\n")


def test_the_client_is_installed_only_where_there_is_none(wheels, tmp_path, monkeypatch):
    requirement = lock(tmp_path / "lock.txt", wheel(wheels))
    command = ["dependencies", "--requirement", str(requirement), "--client", str(tmp_path / "missing.txt")]
    monkeypatch.setattr(install, "CLIENT", "json")
    assert install.main([*command, str(tmp_path / "a")]) == 0
    monkeypatch.setattr(install, "CLIENT", "no_such_client")
    assert install.main([*command, str(tmp_path / "b")]) == 1
