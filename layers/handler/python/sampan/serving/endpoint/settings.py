"""What a SageMaker container is told from outside."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from sampan.contract.errors import InvalidInputError
from sampan.serving.settings import SAGEMAKER_PAYLOAD, Settings, read_settings

Provider = Literal["cpu", "cuda", "tensorrt"]
MODEL = "/opt/ml/model"  # where SageMaker puts a model, your-algorithms-inference-code.html
MODELS = "/opt/ml/models"  # where it puts those of a multi-model endpoint, mms-container-apis.html


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """How an endpoint's container serves; `sampan.contract.function.Endpoint` is where most of it is declared.

    Attributes:
        batch: most rows that requests which come together are run as; 1: each by itself.
        batch_delay_ms: most that a request waits for others.
        sessions: sessions of a model, which run beside each other.
        provider: where the model runs, if it can.
        multi_model: models are loaded and unloaded over HTTP.
        host, port: to listen on; port 0 takes a free one.
        timeout: seconds that SageMaker waits for an answer: 60, of an asynchronous endpoint up to an hour.
        grace: seconds that requests under way get after SIGTERM; SageMaker kills after 30.
        root: folder that models are loaded from over HTTP.
    """

    batch: int = 16
    batch_delay_ms: float = 2.0
    sessions: int = 1
    provider: Provider = "cpu"
    multi_model: bool = False
    host: str = "0.0.0.0"
    port: int = 8080
    timeout: int = 60
    grace: int = 25
    root: Path = Path(MODELS)


def read_endpoint_settings(environment: Mapping[str, str] | None = None) -> EndpointSettings:
    """Settings from the environment.

    | variable | setting |
    |---|---|
    | `SAMPAN_BATCH`, `SAMPAN_BATCH_DELAY_MS`, `SAMPAN_SESSIONS`, `SAMPAN_PROVIDER` | as named |
    | `SAMPAN_TIMEOUT`, `SAMPAN_GRACE` | as named |
    | `SAGEMAKER_MULTI_MODEL` | `multi_model`: true |
    | `SAMPAN_HOST` | `host` |
    | `SAGEMAKER_BIND_TO_PORT` | `port` |
    | `SAMPAN_MODELS_ROOT` | `root` |

    Raises:
        InvalidInputError: names the variable, and what it may be.
    """
    env = os.environ if environment is None else environment
    default = EndpointSettings()
    provider = env.get("SAMPAN_PROVIDER") or default.provider
    if provider not in get_args(Provider):
        raise InvalidInputError(f"SAMPAN_PROVIDER='{provider}' is none of {', '.join(get_args(Provider))}")
    return EndpointSettings(
        batch=int(_number(env, "SAMPAN_BATCH", default.batch, 1, 1024)),
        batch_delay_ms=_number(env, "SAMPAN_BATCH_DELAY_MS", default.batch_delay_ms, 0, 1000, whole=False),
        sessions=int(_number(env, "SAMPAN_SESSIONS", default.sessions, 1, 64)),
        provider=cast(Provider, provider),
        multi_model=env.get("SAGEMAKER_MULTI_MODEL", "").lower() in ("1", "true", "yes"),
        host=env.get("SAMPAN_HOST") or default.host,
        port=int(_number(env, "SAGEMAKER_BIND_TO_PORT", default.port, 0, 65535)),
        timeout=int(_number(env, "SAMPAN_TIMEOUT", default.timeout, 1, 3600)),
        grace=int(_number(env, "SAMPAN_GRACE", default.grace, 0, 3600)),
        root=Path(env.get("SAMPAN_MODELS_ROOT") or default.root),
    )


def read_serving_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """`Settings` with a container's defaults: SageMaker's folder and SageMaker's limit of a body.

    An asynchronous endpoint sets `SAMPAN_MAX_PAYLOAD`, as its bodies may have 1 GB.

    Raises:
        InvalidInputError: as `read_settings`.
    """
    env = os.environ if environment is None else environment
    given = {name: value for name, value in env.items() if value}
    return read_settings({"SAMPAN_MODELS": MODEL, "SAMPAN_MAX_PAYLOAD": str(SAGEMAKER_PAYLOAD), **given})


def _number(
    env: Mapping[str, str], name: str, default: float, least: float, most: float, *, whole: bool = True
) -> float:
    text = env.get(name) or str(default)
    try:
        value = float(int(text)) if whole else float(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise InvalidInputError(f"{name}='{text[:40]}' is no {'whole ' if whole else ''}number from {least} to {most}")
    return value
