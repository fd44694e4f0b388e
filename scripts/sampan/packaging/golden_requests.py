"""Golden samples as a deployed version is asked them: V2 requests in JSON with the answers that were recorded.

    samples → those that JSON can carry → at most 4, and 1 MB → golden.json

The hook of a rollout replays the file (`sampan.stacks.hook`), so it needs neither numpy nor the store.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from statistics import median
from typing import Any

import numpy as np

from sampan.contract.errors import InvalidInputError
from sampan.contract.manifest import Manifest
from sampan.contract.tensors import Array, Tensors, TensorSpec, numeric
from sampan.serving.codecs import json
from sampan.serving.golden import Sample

GOLDEN = "golden.json"
MAX_SAMPLES, MAX_BYTES = 4, 1_000_000
_FLOATS = ("FP16", "FP32", "FP64")  # what a replay compares within the tolerance


def golden_requests(samples: Sequence[Sample], manifest: Manifest) -> bytes:
    """The file's content: `model`, `version`, `rtol`, `atol` (as in `Golden`) and `samples`, which may be none.

    A sample is `{"body": the request, "outputs": [{"name", "datatype", "shape", "data"}]}`, its data flat in
    row-major order; NaN and infinities of an output are null. Samples that JSON cannot carry, or that are too large,
    are left out. The same samples give the same bytes.

    What was quantised may round a little differently on another CPU; where this machine decides by the gates
    (`sampan.serving.golden.replay`), a hook has none. So of a compressed version the samples are taken that compression
    changed least, and `atol` is what it changed in the median one, if that is more than the manifest's.
    """
    head = {"model": manifest.name, "version": manifest.version, "rtol": manifest.golden.rtol}
    changes = [_change(sample, manifest) for sample in samples]
    calm = [samples[index] for index in sorted(range(len(samples)), key=lambda index: changes[index])]
    atol = max(manifest.golden.atol, median(changes or [0.0]))
    return json.dumps({**head, "atol": atol, "samples": list(islice(_fitting(calm, manifest), MAX_SAMPLES))})


def _fitting(samples: Sequence[Sample], manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Samples as JSON while there is room for them."""
    left = MAX_BYTES - 1024  # what stands around them
    for sample in samples:
        try:
            entry = _entry(sample, manifest)
        except InvalidInputError:
            continue
        size = len(json.dumps(entry)) + 1
        if size <= left:
            left -= size
            yield entry


def _entry(sample: Sample, manifest: Manifest) -> dict[str, Any]:
    """One sample.

    Raises:
        InvalidInputError: JSON cannot carry a value.
    """
    signature = manifest.signature
    for spec in signature.inputs:
        if spec.datatype != "BYTES" and not np.isfinite(numeric(sample.inputs[spec.name], spec.datatype)).all():
            raise InvalidInputError(f"input '{spec.name}' has NaN or infinities, which JSON does not")
    return {
        "body": {"inputs": _tensors(sample.inputs, signature.inputs)},
        "outputs": _tensors(sample.outputs, signature.outputs),
    }


def _tensors(tensors: Tensors, specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    return [
        {
            "name": spec.name,
            "datatype": spec.datatype,
            "shape": list(tensors[spec.name].shape),
            "data": json.flat(tensors[spec.name], spec.datatype),
        }
        for spec in specs
        if spec.name in tensors
    ]


def _change(sample: Sample, manifest: Manifest) -> float:
    """How far compression moved a sample's outputs, in units of each one's largest magnitude; 0 without compression."""
    if not manifest.gates:
        return 0.0
    names = [spec.name for spec in manifest.signature.outputs if spec.datatype in _FLOATS]
    pairs = ((sample.outputs[name], sample.reference[name]) for name in names if name in sample.reference)
    return max((_distance(output, reference) for output, reference in pairs), default=0.0)


def _distance(output: Array, reference: Array) -> float:
    if output.shape != reference.shape:
        return 0.0
    finite = np.isfinite(output) & np.isfinite(reference)
    want, truth = output[finite].astype(np.float64), reference[finite].astype(np.float64)
    scale = float(np.abs(want).max(initial=0.0))
    return float(np.abs(want - truth).max(initial=0.0)) / scale if scale else 0.0
