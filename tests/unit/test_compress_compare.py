"""Two versions side by side: `sampan.compress.compare` and `sampan compress --compare A B`."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from models import build, classifier, identity, linear, save, save_with_external_data, several
from sampan.cli.main import main
from sampan.compress.compare import compare, encode_comparison, parameters
from sampan.compress.passes import fp16_weights
from sampan.compress.storage import pack
from sampan.contract.errors import InvalidInputError, NotFoundError
from sampan.store import open_store
from sampan.store.add import add_model

BRIEF = {"seconds": 0.01, "loads": 1}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """`classifier:1`, the same with weights in fp16 as `half:1`, and models of other signatures."""
    folder = tmp_path_factory.mktemp("compare")
    store = open_store(folder / "store")
    source = save(classifier(), folder / "classifier.onnx")
    add_model(store, source, name="classifier")
    fp16_weights.apply(source, folder / "half.onnx")
    add_model(store, folder / "half.onnx", name="half")
    add_model(store, save(linear(), folder / "linear.onnx"), name="linear")
    add_model(store, save(several(), folder / "several.onnx"), name="several")
    return store


@pytest.fixture(scope="module")
def halved(store):
    return compare(store, "classifier", "half:1", **BRIEF)


def run(store, *words):
    return CliRunner().invoke(main, ["--store", str(store.location), "compress", *map(str, words)])


def test_what_differs_is_told(halved):
    a, b = halved.a, halved.b
    assert (a.ref, b.ref, halved.samples_source) == ("classifier:1", "half:1", "generated")
    assert b.size < 0.6 * a.size
    assert b.operators == {**a.operators, "Cast": 3}
    assert (a.parameters, b.parameters["FP32"]) == ({"FP32": 64 * 256 + 256 + 256 * 10 + 10}, 10)
    assert a.load_ms > 0
    assert b.peak_bytes > 1_000_000
    assert halved.latency.low <= halved.latency.ratio <= halved.latency.high


def test_the_answers_are_compared_at_every_output(halved, store):
    (found,) = halved.outputs
    assert (found.output, found.top1_agreement) == ("probabilities", 1.0)
    assert 0 < found.max_abs_error < 1e-2
    assert 0.999 < found.cosine < 1
    assert sum(found.errors.counts) == sum(s.outputs["probabilities"].size for s in store.find("classifier").golden())


def test_a_version_is_as_itself(store):
    found = compare(store, "several", "several:1", **BRIEF)
    assert [(output.output, output.max_abs_error) for output in found.outputs] == [("total", 0.0), ("twice", 0.0)]
    assert [output.errors is None for output in found.outputs] == [False, True]


def test_the_other_way_round_swaps_the_sides(halved, store):
    found = compare(store, "half", "classifier", **BRIEF)
    assert (found.a.size, found.b.size) == (halved.b.size, halved.a.size)
    assert found.outputs[0].max_abs_error == pytest.approx(halved.outputs[0].max_abs_error, rel=1e-3)


def test_other_signatures_are_refused(store):
    with pytest.raises(InvalidInputError, match=r"classifier:1 and linear:1 cannot be compared.*inputs differ"):
        compare(store, "classifier", "linear", **BRIEF)


def test_an_unknown_version_is_refused(store):
    with pytest.raises(NotFoundError, match="no version 7"):
        compare(store, "classifier", "classifier:7", **BRIEF)


def test_the_samples_of_a_seed_give_the_same_answers(halved, store):
    again = compare(store, "classifier", "half", **BRIEF)
    assert again.outputs == halved.outputs


def test_parameters_are_counted_wherever_they_are(tmp_path):
    branch = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [4])],
        [numpy_helper.from_array(np.ones(4, np.float32), "w")],
    )
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(3, np.float64)))
    chosen = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    model = build([constant, chosen], [("x", "FP32", (4,))], [("y", "FP32", (4,))], {"yes": np.array(True)})
    assert parameters(save(model, tmp_path / "m.onnx")) == {"FP32": 8, "FP64": 3, "BOOL": 1}


def test_parameters_beside_the_model_are_not_read(tmp_path):
    path = save_with_external_data(linear(), tmp_path / "m.onnx")
    (tmp_path / "weights.bin").unlink()
    assert parameters(path) == {"FP32": 15}


def test_parameters_of_a_packed_model(tmp_path):
    assert parameters(pack(save(linear(), tmp_path / "m.onnx"), tmp_path)) == {"FP32": 15}


def test_a_datatype_that_v2_lacks_has_its_onnx_name(tmp_path):
    model = identity()
    model.graph.initializer.append(onnx.TensorProto(name="w", dims=[6], data_type=onnx.TensorProto.INT4))
    assert parameters(save(model, tmp_path / "m.onnx")) == {"INT4": 6}


def test_json_keeps_what_is_no_number(halved):
    assert json.loads(encode_comparison(halved))["outputs"][0]["output"] == "probabilities"


def test_the_command_prints_both_and_registers_nothing(store):
    done = run(store, "--compare", "classifier", "half", "--fast")
    assert done.exit_code == 0, done.output
    assert [line.split() for line in done.stdout.splitlines() if "Cast" in line] == [
        ["operators", "Cast", "0", "3", "+3"]
    ]
    assert "classifier:1" in done.stdout
    assert "probabilities" in done.stdout
    assert store.versions("classifier") == [1]


def test_the_command_writes_json_and_the_page(store, tmp_path):
    folder = tmp_path / "new" / "out"
    done = run(store, "--compare", "classifier", "half", "--fast", "-o", "json", "--report", folder)
    assert json.loads(done.stdout)["b"]["ref"] == "half:1"
    assert sorted(file.name for file in folder.iterdir()) == ["compare.html", "compare.json", "errors.png"]
    page = (folder / "compare.html").read_text()
    assert "half:1 is 1.9" in page
    assert "--compare classifier half" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give the REF of a model, or --compare A B"),
        (("--compare", "classifier"), "requires 2 arguments"),
        (("classifier", "--compare", "classifier", "half"), "--compare A B takes no REF"),
        (("--compare", "classifier", "half", "--gate", "cosine>=0.9"), "--compare A B takes no --gate"),
    ],
)
def test_wrong_usage_exits_with_2(store, words, said):
    done = run(store, *words)
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_mistake_is_one_line(store):
    done = run(store, "--compare", "classifier", "linear")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: classifier:1 and linear:1 cannot be compared")
