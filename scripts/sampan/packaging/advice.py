"""What to do about what costs most: one sentence each, with a command or a key of `function.toml` in it."""

from dataclasses import dataclass

from sampan.contract.function import MAX_MEMORY, FunctionConfig
from sampan.contract.manifest import Manifest
from sampan.serving.settings import MEMORY_PER_CPU

PAYLOAD = "payload: send binary tensors (V2 binary extension) and split the batch; an event carries 6 MB, in base64"
_STEP = 64  # MB, in which memory is proposed
_SNAPSTART = (3, 12)  # the oldest Python with SnapStart
_BY_EXTRA = {
    "tokenizers": ("text", "clients that send token ids to /v2 do without"),
    "pillow": ("image", "clients that send tensors to /v2 do without"),
    "zstandard": ("zstd", "a version that `sampan compress` made without --zstd does without"),
    "cryptography": ("encrypt", "a model that is not sealed does without"),
    "botocore": ("trace", "trace = false does without"),
}
_OF_DEPENDENCY = {
    "onnxruntime": "runs the model and is trimmed to that already; a smaller model is the way down",
    "numpy": "is mostly OpenBLAS; a numpy built without BLAS saves some 28 MB",
    "fastapi + pydantic": "is imported for /, /docs and /openapi.json alone, so it costs size and no time",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What advice depends on: the function, its model's name, and the version where it is known."""

    config: FunctionConfig
    model: str
    manifest: Manifest | None

    @property
    def compressed(self) -> bool:
        return self.manifest is not None and self.manifest.recipe is not None


def of_item(facts: Facts, name: str, kind: str, mb: float, whole: float) -> str:
    """About a part of what was built."""
    start = f"{name} is {mb:.1f} MB of {whole:.1f}"
    if kind == "model":
        return f"{start}: {_smaller_model(facts)}"
    if kind == "code":
        return f"{start}: a model or data that a pipeline reads belongs into the store, `sampan add --with`"
    if name == "botocore" and facts.config.heavy:
        return f"{start}: it asks the endpoint, and is trimmed to that already"
    if name in _BY_EXTRA:
        extra, without = _BY_EXTRA[name]
        return f"{start}: it comes with the extra '{extra}'; {without}"
    return f"{start}: it {_OF_DEPENDENCY.get(name, 'is a dependency of the runtime, as locked')}"


def of_phase(facts: Facts, name: str, ms: float, whole: float) -> str:
    """About a part of the cold start."""
    start = f"{name} takes {ms / whole:.0%} of the cold start ({ms:.0f} of {whole:.0f} ms)"
    if name == "verify":
        return f"{start}: {_smaller_model(facts)}, or environment.SAMPAN_VERIFY = '0' where the image is signed"
    if name == "golden":
        return f"{start}: lower golden_check from {facts.config.golden_check}"
    if facts.config.memory < MEMORY_PER_CPU:
        return f"{start}: raise memory to {MEMORY_PER_CPU:,} MB, which is one vCPU"
    if name in ("load", "first_run"):
        return f"{start}: {_smaller_model(facts)}"
    return f"{start}: {_snapshot(facts.config)}"


def memory(facts: Facts, peak: float) -> str:
    """About a process that held too much."""
    wanted = int(-(-peak * 1.1 // _STEP) * _STEP)
    if wanted > MAX_MEMORY:
        return f"memory: Lambda has {MAX_MEMORY:,} MB at most; {_smaller_model(facts)}"
    return f"memory: raise it to {wanted:,} MB, or {_smaller_model(facts)}"


def latency(facts: Facts) -> str:
    """About slow answers."""
    if facts.config.memory < MEMORY_PER_CPU:
        return f"latency: raise memory to {MEMORY_PER_CPU:,} MB, which is one vCPU"
    wanted = (facts.config.memory // MEMORY_PER_CPU + 1) * MEMORY_PER_CPU
    more = f"raise memory to {wanted:,} MB for one more vCPU, or " if wanted <= MAX_MEMORY else ""
    return f"latency: {more}sampan compress {facts.model} --objective latency"


def fewer_files(name: str, files: int, whole: int) -> str:
    return f"{name} has {files:,} of {whole:,} files: each is opened at a cold start or never needed"


def binary_only(mb: float, limit: float) -> str:
    return f"payload: the largest sample fits as binary tensors only, as JSON it is {mb:.1f} MB of {limit:g}"


def _smaller_model(facts: Facts) -> str:
    if facts.compressed:
        return f"it is compressed already: sampan compress {facts.model} --objective size, or sampan distill"
    return f"sampan compress {facts.model}"


def _snapshot(config: FunctionConfig) -> str:
    if config.snapstart:
        return "SnapStart restores it from a snapshot instead"
    version = tuple(int(part) for part in config.python.split("."))
    return "snapstart = true restores a snapshot instead" + (
        "" if version >= _SNAPSTART else ', with python = "3.12" or newer'
    )
