"""`manifest.json`: what a version is, where it comes from and what was proven of it.

The manifest is frozen and has a schema number. A reader refuses a newer schema than its own, and reads
every older one.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from sampan.contract.errors import ModelError
from sampan.contract.tensors import DATATYPES, Signature, TensorSpec

SCHEMA = 1
TOKENIZER = "tokenizer.json"  # what a pipeline of text reads that names no other
OPTIMIZATIONS = ("none", "basic", "extended", "all")  # of the graph at load, by onnxruntime's names
ANY_CPU, VNNI_ONLY, UNKNOWN_CPU = "any x86-64", "VNNI only", "unknown"  # what `Manifest.safe` says


class Frozen(msgspec.Struct, frozen=True):
    """Base of the manifest's parts."""


class FileEntry(Frozen, frozen=True, kw_only=True):
    """SHA-256 (hex) and size (bytes) of one file of the version."""

    sha256: str
    size: int


class TensorEntry(Frozen, frozen=True, kw_only=True):
    """`TensorSpec` as it stands in the file."""

    name: str
    datatype: str
    shape: list[int]


class Golden(Frozen, frozen=True, kw_only=True):
    """The golden samples: file, how many, `given` or `generated` (then with its seed), tolerance of a replay.

    `rtol` and `atol` follow `numpy.allclose`; `atol` is in units of the output's largest magnitude.
    """

    file: str
    count: int
    source: str
    seed: int | None = None
    rtol: float = 1e-3
    atol: float = 1e-4


class GateEntry(Frozen, frozen=True, kw_only=True):
    """A gate as it was measured: `METRIC<=limit` or `METRIC>=limit`, with the standard error of the value.

    `certified` says whether there were samples enough, and real ones; None in versions that did not say.
    """

    gate: str
    value: float
    standard_error: float | None
    samples: int
    passed: bool
    certified: bool | None = None


class DifferenceEntry(Frozen, frozen=True, kw_only=True):
    """How far one output of the ONNX model is from the source framework's, the worst over the samples.

    `max_abs_error` is in the output's own units, `relative_error` the norm of the difference over the norm of
    the source's output. `top1_agreement` is the share of rows with the same most likely class, for scores of
    classes [items, classes]. Integers and strings count 0 where they are equal and 1 where they are not.
    """

    output: str
    max_abs_error: float
    relative_error: float
    top1_agreement: float | None = None


class Conversion(Frozen, frozen=True, kw_only=True):
    """What a version was converted from, and the proof that both answer alike.

    `source` is the file's or folder's name, `format` what it is, such as `keras`; `versions` are the packages
    that took part. The proof ran on `samples` samples; `rtol` and `atol` are as in `Golden`.
    """

    source: str
    format: str
    exporter: str
    versions: dict[str, str]
    samples: int
    rtol: float
    atol: float
    differences: list[DifferenceEntry]


class Needs(Frozen, frozen=True, kw_only=True):
    """What a function must bring: pip extras, session options (onnxruntime's keys) and optimisation at load.

    `optimization` is one of `OPTIMIZATIONS`; below `all` for graphs that were optimised before.
    """

    extras: list[str] = []
    session: dict[str, str] = {}
    optimization: str = "all"


class Sealed(Frozen, frozen=True, kw_only=True):
    """How the model file is encrypted: under a data key of its own, which another key wraps.

    `kind` is `aes-256-gcm`, `file` the encrypted file. `key` says what wraps the data key: `file` (a key file of
    the function's) or `kms:` with the key's ARN. `wrapped` is the wrapped data key in base64.
    """

    kind: str
    file: str
    key: str
    wrapped: str


class Manifest(Frozen, frozen=True, kw_only=True):
    """One immutable version of a model. `model` and the keys of `files` are paths inside its folder.

    `digest` is the content address (`sha256:…`) of the artefact. `opset` maps a domain to its version.
    `pipeline` is the declaration that `sampan.serving.pipelines` reads, `recipe` the passes that made the
    version from `parent`. `report` is a file beside the artefact that tells how the version was made.
    `safe` says on which CPUs its gates hold: `any x86-64`, `VNNI only` or `unknown`; None where
    it was not looked at. `sealed` says how the model file is encrypted, where it is.
    """

    schema: int = SCHEMA
    name: str
    version: int
    digest: str
    created: str
    model: str
    files: dict[str, FileEntry]
    inputs: list[TensorEntry]
    outputs: list[TensorEntry]
    opset: dict[str, int]
    operators: dict[str, int]
    golden: Golden
    parent: str | None = None
    recipe: dict[str, Any] | None = None
    gates: list[GateEntry] = []
    task: str | None = None
    pipeline: dict[str, Any] | None = None
    labels: str | None = None
    licence: str | None = None
    needs: Needs = Needs()
    report: str | None = None
    conversion: Conversion | None = None
    safe: str | None = None
    sealed: Sealed | None = None

    @property
    def ref(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def artefact(self) -> dict[str, FileEntry]:
        """The files that are shipped: all but the golden samples and the report."""
        beside = (self.golden.file, self.report)
        return {path: entry for path, entry in self.files.items() if path not in beside}

    @property
    def size(self) -> int:
        """Bytes of the artefact."""
        return sum(entry.size for entry in self.artefact.values())

    @property
    def companions(self) -> dict[str, FileEntry]:
        """The files that pre- and post-processing read: labels, and those that the pipeline names."""
        tables = [table for table in (self.pipeline or {}).values() if isinstance(table, dict)]
        named = {
            self.labels,
            TOKENIZER,
            *(value for table in tables for value in table.values() if isinstance(value, str)),
        }
        return {path: entry for path, entry in self.files.items() if path in named}

    @property
    def interface(self) -> str:
        """What stands between the graph and its pre- and post-processing, as one digest (`sha256:…`).

        Versions of one interface may take each other's tensors: same name, signature, pipeline, labels, tokenizer.
        """
        companions = {path: entry.sha256 for path, entry in sorted(self.companions.items())}
        facts = (self.name, self.inputs, self.outputs, self.pipeline, self.labels, companions)
        return f"sha256:{hashlib.sha256(msgspec.json.encode(facts, order='deterministic')).hexdigest()}"

    @property
    def signature(self) -> Signature:
        return Signature(tuple(map(_spec, self.inputs)), tuple(map(_spec, self.outputs)))


def tensor_entry(spec: TensorSpec) -> TensorEntry:
    return TensorEntry(name=spec.name, datatype=spec.datatype, shape=list(spec.shape))


def encode_manifest(manifest: Manifest) -> bytes:
    """The file's bytes: JSON with two-space indents, keys in the order of the class."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Read `manifest.json`.

    Raises:
        ModelError: not JSON, a field of the wrong type (named with its path), or a newer schema.
    """
    try:
        head: Mapping[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
        if isinstance(head.get("schema", SCHEMA), int) and head.get("schema", SCHEMA) > SCHEMA:
            raise ModelError(f"{where} has schema {head['schema']}, this Sampan reads up to {SCHEMA}; upgrade it")
        manifest = msgspec.convert(head, Manifest)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ModelError(f"{where} is not a manifest: {error}") from error
    for tensor in (*manifest.inputs, *manifest.outputs):
        if tensor.datatype not in DATATYPES:
            raise ModelError(f"{where} names the datatype '{tensor.datatype}', which is none of V2's")
    level = manifest.needs.optimization
    if level not in OPTIMIZATIONS:
        raise ModelError(f"{where} names the optimisation level '{level}'; there are {', '.join(OPTIMIZATIONS)}")
    return manifest


def _spec(entry: TensorEntry) -> TensorSpec:
    return TensorSpec(entry.name, entry.datatype, tuple(entry.shape))
