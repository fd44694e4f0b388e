"""Where an endpoint's models run: execution providers with their options, and what to say where they do not work.

onnxruntime-gpu without a GPU, or without CUDA's libraries, runs on the CPU and says nothing of it; here it is said.
Options: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html and
https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html
"""

from collections.abc import Sequence

from sampan.serving.session import CPU, Provider

ENGINES = "/tmp/sampan-tensorrt"  # where TensorRT keeps the engines it built, for the next session of this container
NAMES = {"cpu": CPU, "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
# The exhaustive search of convolution algorithms, which is the default, is made anew for every shape and takes seconds.
_CUDA = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
_TENSORRT = {"trt_engine_cache_enable": "True", "trt_engine_cache_path": ENGINES}


def execution_providers(provider: str) -> tuple[Provider, ...]:
    """Execution providers for `cpu`, `cuda` or `tensorrt`, the best first; each leaves to the next what it cannot run.

    TensorRT computes in single precision: half of it would change answers that golden samples were recorded for.
    """
    cuda: Provider = (NAMES["cuda"], _CUDA)
    tensorrt: Provider = (NAMES["tensorrt"], _TENSORRT)
    return {"cpu": (CPU,), "cuda": (cuda, CPU), "tensorrt": (tensorrt, cuda, CPU)}[provider]


def fallback(provider: str, used: Sequence[str]) -> str:
    """A sentence where a model does not run where it should; `used` are the providers of its session. Else empty."""
    if NAMES[provider] in used:
        return ""
    place = next((name for name, known in NAMES.items() if known == used[0]), used[0])
    return (
        f"{provider} was asked for and does not work here, so the model runs on {place}; check that the instance has "
        "an NVIDIA GPU and the image onnxruntime-gpu with its libraries"
    )
