"""`sampan tune` with instances that are none: what it prints, writes, refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sampan.cli.main import main
from sampan.emulation.artefacts import Artefacts
from tuned import FakeFunction

Tune = Callable[..., Result]
SIZES = ("--sizes", "256,512,1024,1769", "--rounds", "2")


@pytest.fixture
def absent() -> dict[str, str]:
    """Why levels are not to be had."""
    return {}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, absent: dict[str, str]) -> FakeFunction:
    function = FakeFunction(held=300)
    monkeypatch.setattr(Artefacts, "why_not", lambda self, level: absent.get(level, ""))
    monkeypatch.setattr(Artefacts, "starter", lambda self, level, memory=None: lambda: function(memory))
    return function


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "functions" / "line" / "function.toml"
    file.parent.mkdir(parents=True)
    file.write_text('model = "linear"  # the first\nmemory = 1024 # MB\n')
    return file


@pytest.fixture
def tune(zoo: Path, fake: FakeFunction, file: Path, tmp_path: Path) -> Tune:
    def run(*arguments: object, name: str = "line", code: int = 0) -> Result:
        place = ["--store", str(zoo), "--project-dir", str(tmp_path), "tune", name]
        result = CliRunner().invoke(main, [*place, *map(str, arguments)])
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    return run


def document(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_table_with_every_size_and_the_reason(tune: Tune) -> None:
    lines = tune(*SIZES).stdout.splitlines()
    assert lines[0].startswith("linear:1, level docker, prices of us-east-1 from 20")
    rows = {line.split()[0]: line for line in lines[:-1] if line.strip() and line.split()[0].isdigit()}
    assert list(rows) == ["256", "512", "1024", "1769"]
    assert "out of memory: it holds all of its 256 MB" in rows["256"]
    assert rows["1024"].rstrip().endswith("now")
    assert rows["1769"].rstrip().endswith("chosen, knee")
    assert lines[-1].startswith("1769 MB: the cheapest of 3 sizes, $0.92 a million calls, p95 20 ms; ")


def test_json_has_all_that_was_measured(tune: Tune) -> None:
    found = document(tune(*SIZES, "--p95", "45", "--cold-share", "0.05", "-o", "json"))
    assert (found["choice"], found["runner_up"], found["memory"], found["level"]) == (1769, 1024, 1024, "docker")
    assert (found["cold_share"], found["rounds"], found["objective"]) == (0.05, 2, {"p95_ms": 45, "cold_ms": None})
    states = {size["memory"]: size["state"] for size in found["sizes"]}
    assert states == {256: "out of memory", 512: "measured", 1024: "measured", 1769: "measured"}
    half = found["sizes"][2]
    assert (half["vcpus"], half["threads"], half["peak_mb"]) == (0.579, 1, 300)
    assert (half["p50_ms"], half["billed_ms"]) == (pytest.approx(34.55, abs=0.01), 35)
    assert half["million_usd"] == pytest.approx(half["cost_usd"] * 1e6, rel=1e-3)
    assert any("Lambda gives it more below 1,769 MB" in note for note in found["notes"])


def test_the_usual_sizes_are_tried_as_far_as_the_machine_goes(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    found = document(tune("--rounds", 1, "-o", "json"))
    measured = [size["memory"] for size in found["sizes"] if size["state"] == "measured"]
    assert measured == [512, 1024, 1769, 2048, 3008, 3538]
    rest = [size for size in found["sizes"] if size["state"] == "not measured"]
    assert [size["memory"] for size in rest] == [5307, 7076, 8845, 10240]
    assert rest[0]["reason"] == "Lambda gives 3.00 vCPUs for 5307 MB, this machine has 2"


def test_the_memory_is_written_back(tune: Tune, file: Path) -> None:
    result = tune(*SIZES, "--write")
    assert file.read_text() == 'model = "linear"  # the first\nmemory = 1769 # MB\n'
    assert f"{file}: memory = 1769, was 1024" in result.stderr


def test_prices_of_another_file(tune: Tune, tmp_path: Path) -> None:
    from sampan.costs.prices import FILE

    own = tmp_path / "prices.toml"
    own.write_text(FILE.read_text().replace("requests_million = 0.20", "requests_million = 100.20", 1))
    usual, dear = (document(tune(*SIZES, "-o", "json", *more)) for more in ((), ("--prices", own)))
    assert dear["sizes"][3]["million_usd"] == pytest.approx(usual["sizes"][3]["million_usd"] + 100)
    assert dear["prices"]["file"] == str(own)


def test_an_objective_that_nothing_holds(tune: Tune, file: Path) -> None:
    before = file.read_bytes()
    result = tune(*SIZES, "--p95", "5", "--write", "-o", "json", code=1)
    assert result.stderr.splitlines()[-1] == (
        "Error: no measured size holds p95 ≤ 5 ms; nearest are 1769 MB with p95 20 ms"
    )
    assert (document(result)["choice"], file.read_bytes()) == (None, before)


def test_a_model_that_fits_no_size(tune: Tune, fake: FakeFunction) -> None:
    fake.held = 20_000
    result = tune(*SIZES, code=1)
    assert "Error: function 'line' was measured at no size (256 MB: out of memory; 512 MB: out of" in result.stderr


def test_ctrl_c_prints_what_was_measured_and_writes_nothing(tune: Tune, fake: FakeFunction, file: Path) -> None:
    fake.raises = {6: KeyboardInterrupt()}
    before = file.read_bytes()
    result = tune(*SIZES, "--write", code=1)
    assert "Error: stopped, with 1 of 2 rounds of every size; nothing is chosen from a part" in result.stderr
    assert "1024" in result.stdout
    assert (fake.running, file.read_bytes()) == (0, before)


def test_without_an_engine_the_emulator_and_without_both_an_error(tune: Tune, absent: dict[str, str]) -> None:
    absent["docker"] = "no Docker engine answers"
    result = tune(*SIZES)
    assert "note: level rie, since docker is not to be had: no Docker engine answers" in result.stderr
    assert "level rie," in result.stdout
    assert tune(*SIZES, "--level", "docker", code=1).stderr == "Error: no Docker engine answers\n"
    absent["rie"] = "there is no emulator"
    assert tune(*SIZES, code=1).stderr == "Error: no Docker engine answers; there is no emulator\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--sizes", "512,many"), 2, "'many' is no memory size; give whole MB separated by commas"),
        (("--sizes", "64"), 2, "Lambda has no 64 MB, but 128 to 10240"),
        (("--p95", "0"), 2, "'--p95'"),
        (("--cold-share", "1.5"), 2, "'--cold-share'"),
        (("--region", "mars-north-1"), 1, "has no prices for the region 'mars-north-1'"),
        (("--prices", "/none.toml"), 1, "the prices /none.toml cannot be read"),
        (("--plot", "curve.gif"), 1, "--plot curve.gif is no picture; end it in .png or .svg"),
        (("--plot", "/none/curve.png"), 1, "there is no folder /none"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_runs(
    tune: Tune, fake: FakeFunction, arguments: tuple[str, ...], code: int, words: str
) -> None:
    result = tune(*arguments, code=code)
    assert words in result.stderr.splitlines()[-1]
    assert (fake.starts, result.stdout) == ([], "")


def test_a_function_that_is_not_there(tune: Tune) -> None:
    assert "did you mean 'line'" in tune(name="lime", code=1).stderr


def test_an_endpoint_has_no_memory_setting(tune: Tune, file: Path) -> None:
    file.write_text('model = "linear"\nplacement = "sagemaker"\n')
    assert "whose instances have no memory setting" in tune(*SIZES, code=1).stderr


@pytest.mark.parametrize("form", ["png", "svg"])
def test_the_picture_marks_the_size(tune: Tune, tmp_path: Path, form: str) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / f"curve.{form}"
    assert f"picture: {picture}" in tune(*SIZES, "--p95", "50", "--plot", picture).stderr
    data = picture.read_bytes()
    if form == "png":
        assert data.startswith(b"\x89PNG")
    else:
        for words in ("1769 MB", "line: 1769 MB, the cheapest with p95 ≤ 50 ms", "out of memory: 256 MB"):
            assert words in data.decode()
