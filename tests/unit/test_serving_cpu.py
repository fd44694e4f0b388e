"""The live CPU is named when it disagrees with what was recorded, and whether that was to be expected."""

import logging
import shutil
from pathlib import Path

import msgspec
import pytest

from sampan.contract.errors import ModelError
from sampan.contract.manifest import GateEntry, Manifest, encode_manifest
from sampan.serving.cpu import Cpu, here, live
from sampan.serving.golden import Sample, read_golden, write_golden
from sampan.serving.repository import ServedModel, load, prove, read_manifest

GATE = GateEntry(gate="cosine>=0.9", value=1, standard_error=0, samples=10, passed=True)
OWN = msgspec.structs.replace(GATE, gate="mine:drop<=1")


def info(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    return file


def test_the_cpu_is_read_from_what_linux_says(tmp_path):
    text = "processor\t: 0\nmodel name\t: Some Xeon\nflags\t\t: fpu avx2 fma avx512_vnni sse\n\nprocessor\t: 1\n"
    cpu = live(info(tmp_path, text))
    assert (str(cpu), cpu.vnni) == ("Some Xeon (avx2 avx512_vnni)", True)
    assert not live(info(tmp_path, text.replace("avx512_vnni", "avx512f"))).vnni
    assert str(live(info(tmp_path, "model name: Old\nflags: fpu\n"))) == "Old (no AVX2)"


def test_a_cpu_that_says_nothing_is_unknown(tmp_path):
    assert live(tmp_path / "nothing").vnni is None
    assert live(info(tmp_path, "CPU implementer : 0x41\n")).sets is None


@pytest.mark.parametrize(
    ("safe", "words"),
    [
        (None, "this CPU is Old (avx2)"),
        ("any x86-64", "this CPU is Old (avx2), the version is safe on: any x86-64"),
        ("VNNI only", "this CPU is Old (avx2), the version is safe on: VNNI only, and this one has no VNNI"),
    ],
)
def test_the_stamp_is_told_with_the_cpu(safe, words):
    assert here(safe, Cpu("Old", ("avx2",))) == words


@pytest.fixture
def version(zoo: Path, tmp_path: Path) -> Path:
    """A copy of linear:1 whose recorded answers are those of another model, a little off."""
    folder = tmp_path / "linear"
    shutil.copytree(zoo / "linear" / "versions" / "1", folder)
    samples = [
        Sample(sample.inputs, {"y": sample.outputs["y"] * 1.01}, sample.outputs)
        for sample in read_golden(folder / "golden.npz")
    ]
    with (folder / "golden.npz").open("wb") as file:
        write_golden(file, samples)
    return folder


def stamp(folder: Path, **fields: object) -> Manifest:
    manifest = msgspec.structs.replace(read_manifest(folder), **fields)
    (folder / "manifest.json").write_bytes(encode_manifest(manifest))
    return manifest


def test_a_cold_start_that_disagrees_names_the_cpu(version):
    stamp(version, safe="VNNI only")
    with pytest.raises(ModelError, match="golden samples here: output 'y' differs by up to") as failure:
        load([version], golden=1)
    assert here("VNNI only") in failure.value.message


@pytest.mark.parametrize("gates", [[GATE], [OWN, GATE]])
def test_a_difference_that_the_gates_forgive_is_logged(version, caplog, gates):
    stamp(version, gates=gates)
    with caplog.at_level(logging.WARNING):
        prove(ServedModel(version))
    assert "linear:1 holds its gates here, but output 'y' differs by up to" in caplog.text
    assert str(live()) in caplog.text


def test_a_gate_of_the_users_alone_forgives_nothing(version):
    stamp(version, gates=[OWN])
    with pytest.raises(ModelError, match="golden samples here"):
        prove(ServedModel(version))


def test_a_model_that_agrees_says_nothing(zoo, caplog):
    prove(ServedModel(zoo / "linear" / "versions" / "1"))
    assert caplog.text == ""
