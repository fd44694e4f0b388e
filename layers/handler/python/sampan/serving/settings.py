"""The environment, read once. Nothing else touches `os.environ`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from sampan.contract.errors import InvalidInputError

LAMBDA_PAYLOAD = (
    6_291_556  # bytes of event or response, https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
)
MEMORY_PER_CPU = 1769  # MB, https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html


@dataclass(frozen=True, slots=True)
class Settings:
    """What a function is told from outside.

    Attributes:
        models: folders, each a version (with `manifest.json`) or a tree that holds versions.
        default: name of the model that `/predict` asks; empty: the only or first one.
        threads: intra-op threads of a session; 0 takes the vCPUs of the memory setting, else every core.
        max_payload: most bytes of a request or response body, as they travel.
        base_path: prefix that the API's custom domain puts before every path.
        golden_check: golden samples to replay at the start; 0 for none.
        service: name in logs, metrics and traces.
        trace: send X-Ray traces (needs the `trace` extra; costs some 300 ms of cold start).
    """

    models: tuple[str, ...] = ()
    default: str = ""
    threads: int = 0
    max_payload: int = LAMBDA_PAYLOAD
    base_path: str = ""
    golden_check: int = 0
    service: str = "sampan"
    trace: bool = False


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from `SAMPAN_*` and Lambda's own variables.

    Raises:
        InvalidInputError: a number that is none.
    """
    env = os.environ if environment is None else environment
    return Settings(
        models=tuple(filter(None, env.get("SAMPAN_MODELS", "/opt/models").split(os.pathsep))),
        default=env.get("SAMPAN_DEFAULT_MODEL", ""),
        threads=_number(env, "SAMPAN_THREADS", _threads(_number(env, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", 0))),
        max_payload=_number(env, "SAMPAN_MAX_PAYLOAD", LAMBDA_PAYLOAD),
        base_path=env.get("SAMPAN_BASE_PATH", "").rstrip("/"),
        golden_check=_number(env, "SAMPAN_GOLDEN_CHECK", 0),
        service=env.get("POWERTOOLS_SERVICE_NAME") or env.get("AWS_LAMBDA_FUNCTION_NAME") or "sampan",
        trace=env.get("SAMPAN_TRACE", "").lower() in ("1", "true", "yes"),
    )


def _threads(memory: int) -> int:
    """vCPUs that Lambda gives for a memory setting in MB, rounded up; 0 outside Lambda."""
    return -(-memory // MEMORY_PER_CPU)


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "")
    if (text and not text.isascii()) or (text and not text.isdigit()):
        raise InvalidInputError(f"{name}='{text}' is not a whole number")
    return int(text) if text else default
