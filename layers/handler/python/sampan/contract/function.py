"""`function.toml`: what a function is. Shapes and defaults only; `sampan.packaging.project` reads the file.

The JSON schema in docs/function.schema.json is generated from these classes.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Placement = Literal["lambda", "lambda-zip", "sagemaker", "sagemaker-async", "auto"]
Architecture = Literal["x86_64", "arm64"]
Engine = Literal["sampan", "triton"]

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MIN_MEMORY, MAX_MEMORY = 128, 10240  # MB
MAX_TIMEOUT = 900  # s
NAME = r"[a-z0-9]+(?:[_-][a-z0-9]+)*"  # what both Docker (a component of an image's name) and Lambda allow
MAX_NAME = 64
INSTANCE = r"^ml\.[a-z0-9-]+\.[a-z0-9-]+$"  # a type of SageMaker's


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the file's tables: an unknown key is an error."""


class Budgets(Strict, frozen=True, kw_only=True):
    """What a build may cost; over one of these `sampan package` fails. MB are 1,000,000 bytes.

    Attributes:
        image_mb: compressed layers on top of the base image, as a push moves them.
        unpacked_mb: the same unpacked; of a zip placement function and layer together.
        files: number of files on top of the base.
        cold_start_ms: process start to first answer, with the function's CPU share.
        memory_mb: peak memory of the function's process; None: the function's memory.
        p95_ms: 95th percentile of warm invocations on the golden samples; None: not limited.
        payload_mb: largest event or result of the golden samples.
    """

    image_mb: Annotated[float, Meta(gt=0)] = 100
    unpacked_mb: Annotated[float, Meta(gt=0)] = 250
    files: Annotated[int, Meta(gt=0)] = 5000
    cold_start_ms: Annotated[float, Meta(gt=0)] = 3000
    memory_mb: Annotated[float, Meta(gt=0)] | None = None
    p95_ms: Annotated[float, Meta(gt=0)] | None = None
    payload_mb: Annotated[float, Meta(gt=0)] = 6


class Endpoint(Strict, frozen=True, kw_only=True):
    """The SageMaker endpoint of the placements `sagemaker` and `sagemaker-async`.

    Attributes:
        instance: type of its instances.
        min: fewest instances; None: 0 where it scales to zero, as an asynchronous one does, else 1.
        max: most instances.
        scale_to_zero: real time: no instance while nobody asks; who asks then gets 503 for the minutes that one takes.
        invocations: requests a minute for each instance, which scaling aims at (real time).
        max_concurrency: requests at once on an instance; when as many more wait for each, one is added (asynchronous).
        startup: seconds that a container may take until it is ready.
        memory: MB for a copy of the model (with scale_to_zero).
        accelerators: GPUs for a copy of the model (with scale_to_zero).
        engine: what runs in the container: Sampan's own serving layer, or NVIDIA's Triton.
        batch: most rows that requests which come together are run as; 1: each by itself.
        batch_delay_ms: most that a request waits for others.
        sessions: sessions of the model on an instance, which run beside each other.
        tensorrt: run on TensorRT where the container has it (GPU).
        fallback: REF of a smaller version with the same signature, which the function runs itself while the endpoint
            does not answer; the answer says so. Empty: none.
    """

    instance: Annotated[str, Meta(pattern=INSTANCE)] = "ml.g4dn.xlarge"
    min: Annotated[int, Meta(ge=0)] | None = None
    max: Annotated[int, Meta(ge=1)] = 2
    scale_to_zero: bool = False
    invocations: Annotated[int, Meta(ge=1)] = 600
    max_concurrency: Annotated[int, Meta(ge=1, le=1000)] = 4
    startup: Annotated[int, Meta(ge=60, le=3600)] = 600
    memory: Annotated[int, Meta(ge=128)] = 4096
    accelerators: Annotated[int, Meta(ge=0)] = 1
    engine: Engine = "sampan"
    batch: Annotated[int, Meta(ge=1, le=1024)] = 16
    batch_delay_ms: Annotated[float, Meta(ge=0, le=1000)] = 2
    sessions: Annotated[int, Meta(ge=1, le=64)] = 1
    tensorrt: bool = False
    fallback: str = ""

    @property
    def gpu(self) -> bool:
        """Whether the instances have NVIDIA's GPUs: families g and p."""
        return self.instance.startswith(("ml.g", "ml.p"))

    def variables(self) -> dict[str, str]:
        """The environment that its container gets of it."""
        return {
            "SAMPAN_BATCH": str(self.batch),
            "SAMPAN_BATCH_DELAY_MS": f"{self.batch_delay_ms:g}",
            "SAMPAN_SESSIONS": str(self.sessions),
            "SAMPAN_PROVIDER": ("tensorrt" if self.tensorrt else "cuda") if self.gpu else "cpu",
        }


class Workload(Strict, frozen=True, kw_only=True):
    """What the function is planned for: `sampan plan` takes it where its options say nothing, placement `auto` always.

    Attributes:
        rate: requests in the mean: 5 (a second), 30/min, 200/h, 1000/day.
        p95_ms: 95 % are answered within this, cold starts and all.
        budget: USD a month at most; None: not limited.
        curve: `day`, or a CSV of 24 weights; empty: the same all day.
        bursts: more requests, such as 50x10s/h.
    """

    rate: Annotated[str, Meta(min_length=1)]
    p95_ms: Annotated[float, Meta(gt=0)]
    budget: Annotated[float, Meta(gt=0)] | None = None
    curve: str = ""
    bursts: tuple[str, ...] = ()


class FunctionConfig(Strict, frozen=True, kw_only=True):
    """One deployable function.

    Attributes:
        model: REF of the version to serve: name, name:3 or name@alias.
        placement: where it runs.
        memory: MB; 1,769 MB are one vCPU.
        timeout: seconds.
        architecture: of the processor.
        python: version of the runtime.
        description: one line for people.
        pipeline: own pre- and post-processing, a file of the function's folder.
        extras: pip extras of Sampan's runtime beside those that the model needs: text, image, zstd, trace, encrypt.
        gates: what `sampan compress` must hold for this model.
        snapstart: restore from a snapshot instead of a cold start (Python 3.12 or newer).
        golden_check: golden samples that must be reproduced at every cold start.
        trace: send X-Ray traces.
        environment: further environment variables; no secrets.
        budgets: what a build may cost.
        endpoint: of the placements sagemaker and sagemaker-async.
        workload: what it is planned for; the placement auto needs it.
    """

    model: Annotated[str, Meta(min_length=1)]
    placement: Placement = "lambda"
    memory: Annotated[int, Meta(ge=MIN_MEMORY, le=MAX_MEMORY)] = 1769
    timeout: Annotated[int, Meta(ge=1, le=MAX_TIMEOUT)] = 29
    architecture: Architecture = "x86_64"
    python: Annotated[str, Meta(pattern=r"^3\.\d+$")] = "3.12"
    description: str = ""
    pipeline: str | None = None
    extras: tuple[Literal["text", "image", "zstd", "trace", "encrypt"], ...] = ()
    gates: tuple[str, ...] = ()
    snapstart: bool = False
    golden_check: Annotated[int, Meta(ge=0)] = 0
    trace: bool = False
    environment: dict[str, str] = {}
    budgets: Budgets = Budgets()
    endpoint: Endpoint = Endpoint()
    workload: Workload | None = None

    @property
    def heavy(self) -> bool:
        """Whether the model runs on an endpoint, and the function only before and after it."""
        return self.placement.startswith("sagemaker")

    def variables(self) -> dict[str, str]:
        """The environment that a deployed function gets; a heavy model's golden samples are checked where it runs."""
        own = {"SAMPAN_TRACE": "1"} if self.trace else {}
        return {**({} if self.heavy else self._golden()), **own, **self.environment}

    def endpoint_variables(self) -> dict[str, str]:
        """The environment that the container of its endpoint gets."""
        return {**self._golden(), **self.endpoint.variables(), **self.environment}

    def _golden(self) -> dict[str, str]:
        return {"SAMPAN_GOLDEN_CHECK": str(self.golden_check)} if self.golden_check else {}
