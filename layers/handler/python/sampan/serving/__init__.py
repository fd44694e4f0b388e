"""What runs per request, anywhere: Lambda, a local server, a SageMaker container.

    event → Request → routes → data plane → pipeline → session → Response → event

Needs the `[runtime]` dependencies only and imports `sampan.contract` and nothing else of ours.

    from sampan.serving import load
    outputs = load(["model_store/models/magika"]).get("magika").infer({"bytes": tokens})
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sampan.serving.repository import load as load


def __getattr__(name: str) -> Any:
    """`load`, imported when it is asked for: it brings onnxruntime with it."""
    if name != "load":
        raise AttributeError(f"module 'sampan.serving' has no attribute '{name}'")
    from sampan.serving.repository import load

    return load
