"""What tests of layers in few bits share: a pass run as a candidate runs it, and how near its answers are."""

import onnx

from models import save
from rewriting import answers
from sampan.compress.passes import run as run_pass
from sampan.compress.tasks import PassCall
from sampan.contract.metrics import cosine


def apply(name, model, folder, calibration=(), **params):
    """The file before and after, what the pass did, and the session options that it needs."""
    before = save(model, folder / "in.onnx") if isinstance(model, onnx.ModelProto) else model
    after = folder / f"{name}.onnx"
    did, needs = run_pass(PassCall(name=name, params=params), before, after, list(calibration))
    return before, after, did, needs


def likeness(before, after, *samples, config=None):
    """The smallest cosine over samples; shapes must agree."""
    found = []
    for inputs in samples:
        want, got = answers(before, inputs), answers(after, inputs, config)
        assert got.shape == want.shape
        found.append(cosine(want.astype(float), got.astype(float)))
    return min(found)
