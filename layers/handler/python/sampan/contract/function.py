"""`function.toml`: what a function is. Shapes and defaults only; `sampan.packaging.project` reads the file.

The JSON schema in docs/function.schema.json is generated from these classes.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Placement = Literal["lambda", "lambda-zip", "sagemaker", "sagemaker-async", "auto"]
Architecture = Literal["x86_64", "arm64"]

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MIN_MEMORY, MAX_MEMORY = 128, 10240  # MB
MAX_TIMEOUT = 900  # s
NAME = r"[a-z0-9]+(?:[_-][a-z0-9]+)*"  # what both Docker (a component of an image's name) and Lambda allow
MAX_NAME = 64


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

    def variables(self) -> dict[str, str]:
        """The environment that a deployed function gets."""
        own = {
            "SAMPAN_GOLDEN_CHECK": str(self.golden_check) if self.golden_check else "",
            "SAMPAN_TRACE": "1" if self.trace else "",
        }
        return {**{name: value for name, value in own.items() if value}, **self.environment}
