"""A function's own `pipeline.py`: what it may define, what clients send it, and whose mistake is whose."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sampan.contract.errors import ModelError
from sampan.serving.asgi import create_app
from sampan.serving.handler import LambdaHandler, create_handler
from sampan.serving.repository import load
from sampan.serving.settings import Settings
from serving import Answer, Ask, Recorder, answer_of, call_asgi, event_of, post

BEFORE = """
import numpy as np
def preprocess(items):
    return {"x": np.array([[item["age"], item["height"], 0, 0] for item in items], np.float32)}
"""
AFTER = """
def postprocess(outputs, inputs):
    return [{"sum": float(row.sum()), "first": x[0], "row": row} for row, x in zip(outputs["y"], inputs["x"])]
"""
PEOPLE = [{"age": 3, "height": 1.5}, {"age": 4, "height": 0.5}]
ROWS = np.array([[3, 1.5, 0, 0], [4, 0.5, 0, 0]], np.float32)


class Own:
    """One model with a pipeline of its own, through both lanes and the ASGI app."""

    def __init__(self, folder: Path, pipeline: Path) -> None:
        self.observer = Recorder()
        settings = Settings((str(folder),), pipeline=pipeline)
        hot = create_handler(settings, self.observer)
        self.repository = hot.api.plane.repository
        cold = LambdaHandler(self.repository, settings, self.observer, lane="cold")
        app = create_app(hot.api, self.observer)
        self.ways: list[Callable[[Ask], Answer]] = [
            lambda ask: answer_of(hot(event_of("rest", ask), None)),
            lambda ask: answer_of(cold(event_of("http", ask), None)),
            lambda ask: call_asgi(app, ask),
        ]

    def __call__(self, ask: Ask) -> Answer:
        """The answer, which every way gives."""
        answers = [way(ask) for way in self.ways]
        assert len({(answer.status, answer.body) for answer in answers}) == 1
        return answers[0]


@pytest.fixture
def own(zoo: Path, tmp_path: Path) -> Callable[..., Own]:
    def make(code: str, name: str = "linear") -> Own:
        (tmp_path / "pipeline.py").write_text(code)
        os.utime(tmp_path / "pipeline.py", (0, 0))
        return Own(zoo / name / "versions" / "1", tmp_path / "pipeline.py")

    return make


def predict(items: Any, name: str = "linear", key: str = "inputs") -> Ask:
    return post(f"/models/{name}/predict", {key: items})


def answers_of(model: Any, x: np.ndarray) -> np.ndarray:
    return model.infer({"x": x})["y"]


# --- what it defines -------------------------------------------------------------------------------------------


def test_both_steps_of_its_own(own):
    served = own(BEFORE + AFTER)
    y = answers_of(served.repository.default(), ROWS)
    outputs = served(predict(PEOPLE)).json()["outputs"]
    assert [output["first"] for output in outputs] == [3, 4]
    np.testing.assert_allclose([output["row"] for output in outputs], y)
    np.testing.assert_allclose([output["sum"] for output in outputs], y.sum(1), rtol=1e-6)
    assert served(predict(PEOPLE[0], key="input")).json()["output"] == outputs[0]
    assert served(predict([])).json()["outputs"] == []
    assert served.observer.failures == []


def test_without_postprocess_every_output_comes_out(own):
    served = own(BEFORE)
    outputs = served(predict(PEOPLE)).json()["outputs"]
    np.testing.assert_allclose([output["y"] for output in outputs], answers_of(served.repository.default(), ROWS))


def test_without_preprocess_rows_go_in(own):
    served = own(AFTER)
    outputs = served(predict(ROWS.tolist())).json()["outputs"]
    np.testing.assert_allclose([output["row"] for output in outputs], answers_of(served.repository.default(), ROWS))
    assert served(predict({"x": ROWS[1].tolist()}, key="input")).json()["output"] == outputs[1]
    refused = served(predict([[1, 2]]))
    assert (refused.status, refused.error) == (400, "input 'x' must have shape [-1, 4], got [1, 2]")


def test_a_large_body_is_read_the_same(own):
    served = own(BEFORE + AFTER)
    assert len(served(predict(PEOPLE * 2000)).json()["outputs"]) == 4000


def test_what_it_leaves_out_is_the_declared_pipeline(own):
    declared = own("def postprocess(outputs, inputs): return [int(row.argmax()) for row in outputs['y']]", "files")
    body = Ask("POST", "/models/files/predict", b"abcdefgh", {"content-type": "application/octet-stream"})
    assert declared(body).json()["output"] in (0, 1, 2)
    lengths = """
import numpy as np
def preprocess(items):
    return {"x": np.array([[len(item)] * 8 for item in items], np.float32)}
"""
    given = own(lengths, "files")
    items = predict(["abc", {"b64": "AAE="}, b"\x00".decode()], "files")
    labels = given(items).json()["outputs"]
    assert [len(item) for item in labels] == [2, 2, 2]
    assert {entry["label"] for item in labels for entry in item} <= {"text", "image", "other"}


def test_bytes_and_text_come_as_they_are(own):
    kinds = """
import numpy as np
seen = []
def preprocess(items):
    seen.extend(items)
    return {"x": np.zeros((len(items), 4), np.float32)}
def postprocess(outputs, inputs):
    return [repr(item) for item in seen[-len(inputs["x"]):]]
"""
    served = own(kinds)
    items = ["text", {"b64": "AAE="}, 7, None, [1, {"a": 2}]]
    assert served(predict(items)).json()["outputs"] == ["'text'", r"b'\x00\x01'", "7", "None", "[1, {'a': 2}]"]
    raw = Ask("POST", "/models/linear/predict", b"\xff\x00", {"content-type": "image/png"})
    assert served(raw).json()["output"] == r"b'\xff\x00'"
    assert served(predict([{"b64": "?"}])).status == 400


def test_raw_tensors_go_past_it(own):
    served = own(BEFORE + AFTER)
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 4], "data": ROWS.tolist()}
    answer = served(post("/v2/models/linear/infer", {"inputs": [tensor]})).json()["outputs"][0]
    np.testing.assert_allclose(
        np.reshape(answer["data"], answer["shape"]), answers_of(served.repository.default(), ROWS), rtol=1e-6
    )


def test_it_is_for_the_default_model_alone(zoo: Path, tmp_path: Path):
    (tmp_path / "pipeline.py").write_text(BEFORE)
    repository = load([zoo / "files", zoo / "linear"], default="linear", pipeline=tmp_path / "pipeline.py")
    assert repository.get("linear").pipeline.own == "pipeline.py"
    assert repository.get("files").pipeline.own == ""


# --- mistakes at the start -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("x = 1\ny = 1 / 0\n", "pipeline.py:2 raises ZeroDivisionError: division by zero"),
        ("import nothing_of_this_name\n", "pipeline.py:1 raises ModuleNotFoundError: No module named 'nothing_of"),
        ("x = 1\ndef preprocess(items)\n    return 1\n", "pipeline.py:2 raises SyntaxError: expected ':'"),
        ("def f():\n    int('x')\n\nf()\n", "pipeline.py:2 raises ValueError: invalid literal"),
        ("import json\n\njson.loads('{')\n", "pipeline.py:3 raises JSONDecodeError"),
        ("raise SystemExit(3)\n", "pipeline.py:1 raises SystemExit: 3"),
        ("preprocess = 5\n", "preprocess of pipeline.py is no function but int"),
        ("def prepare(items): ...\n", "pipeline.py defines neither preprocess nor postprocess; define one"),
        ("", "pipeline.py defines neither"),
        ("\x00", "pipeline.py raises SyntaxError: source code string cannot contain null bytes"),
    ],
)  # fmt: skip
def test_a_pipeline_that_cannot_be_loaded_is_one_sentence(own, code: str, words: str):
    with pytest.raises(ModelError) as failure:
        own(code)
    assert failure.value.message.startswith(words)


def test_no_pipeline_where_one_is_named(zoo: Path, tmp_path: Path):
    with pytest.raises(ModelError, match=r"the pipeline .*none.py cannot be read: No such file"):
        load([zoo / "linear"], pipeline=tmp_path / "none.py")


def test_a_changed_file_is_read_anew_whatever_its_time(own, tmp_path: Path):
    for number in (1, 2):
        served = own(f"def postprocess(outputs, inputs): return [{number}]")
        assert served(predict([[1, 2, 3, 4]])).json()["outputs"] == [number]
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline.py"]


def test_a_scalar_needs_a_postprocess(own):
    with pytest.raises(ModelError, match=r"pipeline.py must define postprocess: output 'y' is a scalar"):
        own("def preprocess(items): ...", "scalar")
    whole = """
import numpy as np
def preprocess(items): return {"x": np.array(items[0], np.float32)}
def postprocess(outputs, inputs): return [float(outputs["y"])]
"""
    assert own(whole, "scalar")(predict([2.5], "scalar")).json()["outputs"] == [2.5]


# --- mistakes per request --------------------------------------------------------------------------------------

IN = "import numpy as np\ndef preprocess(items):\n    "
OUT = "def postprocess(outputs, inputs):\n    "
NO_ARRAYS = "not an array for each input by name"
NOT_TAKEN = "preprocess of pipeline.py gives what the model does not take: "


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (IN + "return [1]", f"preprocess of pipeline.py gives list, {NO_ARRAYS}"),
        (IN + "return {'x': [[1, 2, 3, 4]]}", f"preprocess of pipeline.py gives a dict of list, {NO_ARRAYS}"),
        (IN + "return {'x': np.zeros((1, 4))}", f"{NOT_TAKEN}input 'x' must be FP32, got float64"),
        (IN + "return {'z': np.zeros((1, 4))}", f"{NOT_TAKEN}input 'x' is missing; the model takes 'x'"),
        (IN + "raise ValueError('secret')", "pipeline.py:3 raises ValueError; the log has the details"),
        (OUT + "return outputs['y']", "postprocess of pipeline.py gives ndarray, not a list with a result an item"),
        (OUT + "return [1, 2]", "pipeline.py gives 2 results for 1 items; give one an item"),
        (OUT + "return []", "pipeline.py gives 0 results for 1 items; give one an item"),
        (OUT + "return outputs['no']", "pipeline.py:2 raises KeyError; the log has the details"),
        (OUT + "return [{1}]", "pipeline.py gives a result that is no JSON: Type is not JSON serializable: set"),
    ],
)
def test_a_mistake_of_the_pipeline_is_ours_and_is_logged(own, code: str, error: str):
    served = own(code)
    answer = served(predict([[1, 2, 3, 4]]))
    assert (answer.status, answer.error) == (500, error)
    assert len(served.observer.failures) == len(served.ways)
    assert all(isinstance(failure, ModelError) for failure in served.observer.failures)


def test_the_log_has_what_the_answer_has_not(own):
    served = own("def preprocess(items):\n    raise ValueError('secret')")
    assert b"secret" not in served(predict([1])).body
    assert str(served.observer.failures[0].__cause__) == "secret"


def test_a_refused_item_is_the_clients(own):
    served = own("""
from sampan.contract.errors import InvalidInputError
def preprocess(items):
    raise InvalidInputError(f"age {items[0]} is none")
""")
    answer = served(predict([-1]))
    assert (answer.status, answer.error) == (400, "age -1 is none")
    assert served.observer.failures == []


def test_a_pipeline_out_of_memory_is_asked_again_later(own):
    assert own("def preprocess(items): raise MemoryError")(predict([1])).status == 503


def test_numpy_results_are_json(own):
    served = own(
        "def postprocess(outputs, inputs): return [{'best': row.argmax(), 'row': row} for row in outputs['y']]"
    )
    result = json.loads(served(predict(ROWS.tolist())).body)["outputs"][0]
    assert isinstance(result["best"], int)
    assert len(result["row"]) == 3


def test_bytes_are_no_row(own):
    served = own(AFTER)
    raw = Ask("POST", "/models/linear/predict", b"\xff\x00", {"content-type": "image/png"})
    assert served(raw).status == served(predict([{"b64": "AAE="}])).status == 400
    assert served.observer.failures == []
