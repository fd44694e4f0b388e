"""Budgets: sizes by what a file is, payloads as they travel, verdicts, advice, and the waterfall's three forms."""

import io
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

import models
from sampan.contract.errors import InvalidInputError
from sampan.contract.function import Budgets, FunctionConfig
from sampan.packaging import waterfall as forms
from sampan.packaging.budgets import BudgetError, Item, Measurement, Payload, Sizes, Waterfall, assess
from sampan.packaging.payload import ENVELOPE, payload_of
from sampan.packaging.sizes import sizes_of
from sampan.serving.golden import Sample
from sampan.serving.handler import LambdaHandler
from sampan.serving.repository import load
from sampan.serving.settings import Settings
from sampan.store import open_store
from sampan.store.add import add_model
from serving import answer_of, binary, event_of, post

PARTS = Sizes(
    (
        Item("numpy", "dependency", 30, 400),
        Item("model", "model", 50, 2),
        Item("Sampan", "code", 0.4, 60),
        Item("labels", "model", 0.001, 1),
        Item("orjson", "dependency", 0.3, 3),
        Item("mangum", "dependency", 0.1, 12),
    ),
    33.0,
)
RAN = Measurement(
    level="rie",
    cold_start_ms=400.0,
    phases={"runtime": 60.0, "import": 200.0, "verify": 10.0, "load": 90.0, "first_run": 20.0, "rest": 20.0},
    peak_memory_mb=150.0,
    p95_ms=12.0,
    invocations=50,
)


def config(memory: int = 1769, model: str = "words:2", **budgets: float) -> FunctionConfig:
    return FunctionConfig(model=model, memory=memory, budgets=Budgets(**budgets))


def verdict(waterfall: Waterfall, name: str):
    return next(one for one in waterfall.verdicts if one.budget == name)


@pytest.fixture
def version(tmp_path: Path):
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    path = models.save(models.linear(), tmp_path / "linear.onnx")
    return add_model(open_store(str(tmp_path / "store")), path, labels=tmp_path / "labels.txt").version


def put(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


# --- sizes -----------------------------------------------------------------------------------------------------


def test_files_are_counted_by_what_they_are(tmp_path: Path, version):
    put(tmp_path / "deps/numpy/_core/a.so", 700)
    put(tmp_path / "deps/numpy.libs/blas.so", 300)
    put(tmp_path / "deps/PIL/Image.pyc", 40)
    put(tmp_path / "deps/csimdjson.cpython-311-x86_64-linux-gnu.so", 50)
    put(tmp_path / "deps/starlette/a.pyc", 5)
    put(tmp_path / "deps/pydantic_core/b.so", 6)
    put(tmp_path / "deps/numpy-2.4.6.dist-info/METADATA", 8)
    put(tmp_path / "deps/other/models/manifest.json", 9)
    put(tmp_path / "code/opt/python/sampan/serving/http.py", 20)
    put(tmp_path / "code/var/task/pipeline.py", 3)
    place = tmp_path / "model/var/task/models/linear"
    place.parent.mkdir(parents=True)
    version.folder.rename(place)
    put(place / "model.onnx.data", 90)
    found = {(one.kind, one.name): one for one in sizes_of(tmp_path / part for part in ("deps", "code", "model", "no"))}
    assert found["dependency", "numpy"].files == 3
    assert found["dependency", "numpy"].mb == pytest.approx(1008e-6)
    assert found["dependency", "fastapi + pydantic"].files == 2
    assert found["dependency", "pillow"].files == found["dependency", "pysimdjson"].files == 1
    assert found["code", "Sampan"].mb == pytest.approx(20e-6)
    assert found["code", "own pipeline"].files == 1
    size = (place / "model.onnx").stat().st_size + 90
    assert found["model", "model"] == Item("model", "model", size / 1e6, 2)
    assert found["model", "labels"].mb == pytest.approx(6e-6)
    assert {name for kind, name in found if kind == "model"} == {"model", "labels", "golden samples", "manifest"}


def test_metadata_says_the_distribution_of_a_foreign_name(tmp_path: Path):
    put(tmp_path / "yaml/a.so", 10)
    put(tmp_path / "_yaml/b.py", 10)
    info = tmp_path / "pyyaml-6.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: PyYAML\n\nName: not this one\n")
    (info / "RECORD").write_text("yaml/a.so,sha256=x,10\n_yaml/b.py,,\n../../bin/y,,\n")
    assert [(item.name, item.files) for item in sizes_of([tmp_path])] == [("pyyaml", 4)]


def test_a_link_counts_as_itself(tmp_path: Path):
    put(tmp_path / "far/away.bin", 5_000)
    put(tmp_path / "deps/numpy/a.py", 1)
    (tmp_path / "deps/numpy/link").symlink_to(tmp_path / "far/away.bin")
    (item,) = sizes_of([tmp_path / "deps"])
    assert item.mb < 0.005


# --- payload ---------------------------------------------------------------------------------------------------


def sample(rows: int) -> Sample:
    random = np.random.default_rng(rows)
    return Sample({"x": random.normal(size=(rows, 4)).astype("f4")}, {"y": random.normal(size=(rows, 3)).astype("f4")})


def test_payload_is_what_travels(version):
    """Against events and results that the real handler takes and gives."""
    big = sample(300)
    payload = payload_of([sample(1), big, sample(2)], version.manifest)
    handler = LambdaHandler(load([version.folder]), Settings(), _Silent())
    tensor = {"name": "x", "datatype": "FP32", "shape": [300, 4]}
    blob = big.inputs["x"].tobytes()
    head = {"inputs": [tensor | {"parameters": {"binary_data_size": len(blob)}}]}
    head["parameters"] = {"binary_data_output": True}
    text = {"inputs": [tensor | {"data": [float(repr(x)) for x in big.inputs["x"].ravel().tolist()]}]}
    ask = binary("/v2/models/linear/infer", head, blob)
    event = event_of("rest", ask)
    result = handler(event, None)
    assert answer_of(result).status == 200
    carried = max(len(event["body"]), len(result["body"]))
    assert carried <= payload.binary <= carried + ENVELOPE + 200
    event = event_of("rest", post("/v2/models/linear/infer", text))
    assert answer_of(handler(event, None)).status == 200
    assert payload.binary < payload.json <= 2 * len(event["body"])
    assert payload.least == payload.binary


def test_bytes_that_are_no_text_have_no_json_form(tmp_path: Path):
    path = models.save(models.identity("BYTES"), tmp_path / "echo.onnx")
    manifest = add_model(open_store(str(tmp_path / "store")), path).version.manifest
    tensor = np.array([b"\xff\xfe" * 5000], object)
    payload = payload_of([Sample({"x": tensor}, {"y": tensor})], manifest)
    assert payload.json is None
    assert payload.least == payload.binary > 13_000


def test_no_samples_are_no_payload(version):
    assert payload_of([], version.manifest) == Payload(0, 0)


class _Silent:
    def served(self, *_: object) -> None: ...

    def failed(self, *_: object) -> None: ...


# --- verdicts --------------------------------------------------------------------------------------------------


def test_what_holds_holds():
    waterfall = assess(config(), PARTS, RAN, Payload(1000, 2000))
    assert not waterfall.over
    waterfall.check()
    assert verdict(waterfall, "unpacked_mb").value == pytest.approx(80.801)
    assert verdict(waterfall, "files").value == 478
    assert verdict(waterfall, "memory_mb").limit == 1769
    assert verdict(waterfall, "payload_mb").value == pytest.approx(0.001)


def test_what_was_not_measured_is_not_held():
    waterfall = assess(config(p95_ms=1), replace(PARTS, compressed_mb=None))
    unknown = ("image_mb", "cold_start_ms", "memory_mb", "p95_ms", "payload_mb")
    assert [one.budget for one in waterfall.verdicts if one.held is None] == list(unknown)
    assert all(verdict(waterfall, name).value is None for name in unknown)
    waterfall.check()


def test_a_context_alone_holds_no_size():
    waterfall = assess(config(unpacked_mb=1, files=1), replace(PARTS, complete=False))
    assert verdict(waterfall, "unpacked_mb").held is None
    assert verdict(waterfall, "files").held is None
    assert "without dependencies" in shown(waterfall)
    assert forms.as_dict(waterfall)["complete"] is False


def test_no_limit_is_no_verdict():
    assert verdict(assess(config(), PARTS, RAN), "p95_ms").held is None


@pytest.mark.parametrize(
    ("budgets", "word"),
    [
        ({"image_mb": 20}, "sampan compress words"),
        ({"unpacked_mb": 80}, "sampan compress words"),
        ({"files": 477}, "numpy has 400 of 478"),
        ({"cold_start_ms": 399}, "import takes 50% of the cold start"),
        ({"memory_mb": 149}, "raise it to 192 MB"),
        ({"p95_ms": 11}, "raise memory to 3,538 MB"),
        ({"payload_mb": 0.0009}, "send binary tensors"),
    ],
)
def test_each_budget_can_fail_alone_and_says_what_to_do(budgets: dict[str, float], word: str):
    waterfall = assess(config(**budgets), PARTS, RAN, Payload(1000, 2000))
    (over,) = waterfall.over
    assert over.budget in budgets
    assert word in over.advice
    assert over.advice == waterfall.advice[0]
    with pytest.raises(BudgetError) as raised:
        waterfall.check()
    assert f"{over.budget} is " in raised.value.message
    assert over.advice in raised.value.message
    assert "\n" not in raised.value.message


def test_the_error_names_everything_that_is_over():
    waterfall = assess(config(image_mb=1, files=10, p95_ms=1), PARTS, RAN)
    with pytest.raises(BudgetError, match=r"image_mb is 33 of 1; files is 478 of 10; p95_ms is 12 of 1;"):
        waterfall.check()


def test_less_than_one_cpu_is_said_first():
    assert "raise memory to 1,769 MB" in assess(config(memory=512, cold_start_ms=100), PARTS, RAN).over[0].advice


def test_a_compressed_model_is_not_told_to_compress_plainly(version):
    compressed = msgspec.structs.replace(version.manifest, recipe={"name": "int8", "passes": []})
    plain = assess(config(unpacked_mb=1), PARTS, manifest=version.manifest)
    again = assess(config(unpacked_mb=1), PARTS, manifest=compressed)
    assert "sampan distill" not in plain.over[0].advice
    assert "sampan distill" in again.over[0].advice


def test_samples_that_fit_as_binary_alone_are_said():
    waterfall = assess(config(), PARTS, None, Payload(5_000_000, 9_000_000))
    assert verdict(waterfall, "payload_mb").held
    assert any("as JSON it is 9.0 MB of 6" in words for words in waterfall.advice)


def test_the_largest_parts_come_with_advice_although_nothing_is_over():
    words = assess(config(), PARTS, RAN).advice
    assert words[0].startswith("model is 50.0 MB of 80.8: sampan compress words")
    assert words[1].startswith("numpy is 30.0 MB")
    assert words[-1].startswith("import takes 50%")


# --- forms -----------------------------------------------------------------------------------------------------


def shown(waterfall: Waterfall) -> str:
    file = io.StringIO()
    forms.show(waterfall, Console(file=file, width=120))
    return file.getvalue()


def test_the_table_has_parts_phases_and_budgets():
    text = shown(assess(config(model="[red]:2", unpacked_mb=60), PARTS, RAN, Payload(1000, 2000)))
    assert "[red]:2: size" in text
    assert text.index("model ") < text.index("numpy") < text.index("Sampan") < text.index("3 small parts")
    assert "cold start (rie)" in text
    assert "first_run" in text
    row = next(line for line in text.splitlines() if line.strip().startswith("unpacked_mb"))
    assert "60 MB" in row
    assert "OVER" in row
    assert "no limit" in next(line for line in text.splitlines() if "p95_ms" in line)


def test_the_table_says_what_was_not_measured():
    text = shown(assess(config(), PARTS))
    assert "cold start (" not in text
    assert "not measured" in next(line for line in text.splitlines() if "cold_start_ms" in line)


def test_bars_continue_each_other():
    first, second = forms.bar(30, 0, 60), forms.bar(30, 30, 60)
    assert len(first) == forms.BAR // 2
    assert second.strip() == first
    assert second.index("█") == len(first)
    assert forms.bar(1e-9, 0, 60) == "█"
    assert forms.bar(0, 0, 0) == ""


def test_json_has_every_part_and_null_for_the_unknown(tmp_path: Path):
    waterfall = assess(config(unpacked_mb=60), PARTS)
    written = forms.write(waterfall, tmp_path / "build")
    document = json.loads(written[0].read_text())
    assert document["held"] is False
    assert [one["name"] for one in document["sizes"]] == ["model", "numpy", "Sampan", "orjson", "mangum", "labels"]
    assert document["measured"] is None
    held = {one["budget"]: one["held"] for one in document["budgets"]}
    assert held["unpacked_mb"] is False
    assert held["cold_start_ms"] is None
    assert document["advice"][0] == waterfall.over[0].advice
    assert sorted(path.name for path in (tmp_path / "build").iterdir()) == ["waterfall.json", "waterfall.png"]


@pytest.mark.parametrize("form", ["png", "svg"])
def test_the_picture_is_the_same_each_time_and_shows_the_figures(tmp_path: Path, form: str):
    waterfall = assess(config(model="a$b_{c}:2", unpacked_mb=60), PARTS, RAN)
    one = forms.draw(waterfall, tmp_path / f"one.{form}").read_bytes()
    two = forms.draw(waterfall, tmp_path / f"two.{form}").read_bytes()
    other = forms.draw(assess(config(), PARTS, RAN), tmp_path / f"other.{form}").read_bytes()
    assert one == two != other
    if form == "svg":
        text = one.decode()
        for word in ("a$b_{c}:2", "numpy", "first_run", "budget 60 MB", "budget 3,000 ms", "80.8"):
            assert word in text
    else:
        assert one.startswith(b"\x89PNG")


def test_a_picture_of_nothing_is_still_one(tmp_path: Path):
    assert forms.draw(assess(config(), Sizes(())), tmp_path / "nothing.png").stat().st_size


def test_another_suffix_is_refused(tmp_path: Path):
    with pytest.raises(InvalidInputError, match=r"waterfall\.gif is no picture"):
        forms.draw(assess(config(), PARTS), tmp_path / "waterfall.gif")
