"""The environment, read once. Nothing else touches `os.environ`."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sampan.contract.errors import InvalidInputError

LAMBDA_PAYLOAD = (
    6_291_556  # bytes of event or response, https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
)
# bytes that a real-time endpoint takes, https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html
SAGEMAKER_PAYLOAD = 6_291_456
MEMORY_PER_CPU = 1769  # MB, https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html: starts that no request waits for
_AHEAD = ("provisioned-concurrency", "snap-start")
_NO = ("0", "false", "no")
_DIGEST = re.compile("sha256:[0-9a-f]{64}")


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
        verify: compare every file of a version with its manifest before the version is opened.
        manifest_digest: `sha256:…` of the `manifest.json` of the only live model; empty: any. A release that pins
            it pins all files, as the manifest has their digests.
        pipeline: the function's own pre- and post-processing of the default model (`sampan.serving.pipelines.own`).
        key_file: key that opens sealed models (`sampan.serving.sealed`).
        warm: run each live version once at the start, for environments that are made before a request waits.
        endpoint: SageMaker endpoint that runs the models; this process does what is before and after. Empty: none.
        component: inference component of that endpoint, where it has some.
        fallback: version folder that this process runs itself while the endpoint does not answer.
        origins: web origins whose pages may read the answers; `*`: all. A REST API asks its function to say so.
    """

    models: tuple[str, ...] = ()
    default: str = ""
    threads: int = 0
    max_payload: int = LAMBDA_PAYLOAD
    base_path: str = ""
    golden_check: int = 0
    service: str = "sampan"
    trace: bool = False
    verify: bool = False
    manifest_digest: str = ""
    pipeline: Path | None = None
    key_file: Path | None = None
    warm: bool = False
    endpoint: str = ""
    component: str = ""
    fallback: Path | None = None
    origins: tuple[str, ...] = ()


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from `SAMPAN_*` and Lambda's own variables.

    | variable | setting |
    |---|---|
    | `SAMPAN_MODELS` | `models`, separated as in `PATH`; else `$LAMBDA_TASK_ROOT/models`, else `/opt/models` |
    | `SAMPAN_DEFAULT_MODEL`, `SAMPAN_MAX_PAYLOAD`, `SAMPAN_BASE_PATH`, `SAMPAN_GOLDEN_CHECK` | as named |
    | `SAMPAN_THREADS` | `threads`; else by `AWS_LAMBDA_FUNCTION_MEMORY_SIZE` |
    | `POWERTOOLS_SERVICE_NAME`, `AWS_LAMBDA_FUNCTION_NAME` | `service` |
    | `SAMPAN_TRACE` | `trace`: 1, true, yes |
    | `SAMPAN_VERIFY` | `verify`: on unless 0, false, no |
    | `SAMPAN_MANIFEST_DIGEST`, `SAMPAN_KEY_FILE` | as named |
    | `SAMPAN_PIPELINE` | `pipeline`; else `$LAMBDA_TASK_ROOT/pipeline.py`, if it is there |
    | `AWS_LAMBDA_INITIALIZATION_TYPE` | `warm`: provisioned-concurrency, snap-start |
    | `SAMPAN_ENDPOINT`, `SAMPAN_COMPONENT` | as named |
    | `SAMPAN_FALLBACK` | `fallback`; else `$LAMBDA_TASK_ROOT/fallback`, if it is there |
    | `SAMPAN_ORIGINS` | `origins`, separated by commas |

    Raises:
        InvalidInputError: a number that is none, or a digest that is none.
    """
    env = os.environ if environment is None else environment
    return Settings(
        models=_models(env),
        default=env.get("SAMPAN_DEFAULT_MODEL", ""),
        threads=_number(env, "SAMPAN_THREADS", _threads(_number(env, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", 0))),
        max_payload=_number(env, "SAMPAN_MAX_PAYLOAD", LAMBDA_PAYLOAD),
        base_path=env.get("SAMPAN_BASE_PATH", "").rstrip("/"),
        golden_check=_number(env, "SAMPAN_GOLDEN_CHECK", 0),
        service=env.get("POWERTOOLS_SERVICE_NAME") or env.get("AWS_LAMBDA_FUNCTION_NAME") or "sampan",
        trace=env.get("SAMPAN_TRACE", "").lower() in ("1", "true", "yes"),
        verify=env.get("SAMPAN_VERIFY", "").lower() not in _NO,
        manifest_digest=_digest(env),
        pipeline=_beside(env, "SAMPAN_PIPELINE", "pipeline.py"),
        key_file=Path(env["SAMPAN_KEY_FILE"]) if env.get("SAMPAN_KEY_FILE") else None,
        warm=env.get("AWS_LAMBDA_INITIALIZATION_TYPE", "") in _AHEAD,
        endpoint=env.get("SAMPAN_ENDPOINT", ""),
        component=env.get("SAMPAN_COMPONENT", ""),
        fallback=_beside(env, "SAMPAN_FALLBACK", "fallback"),
        origins=tuple(filter(None, env.get("SAMPAN_ORIGINS", "").split(","))),
    )


def _models(env: Mapping[str, str]) -> tuple[str, ...]:
    root = env.get("LAMBDA_TASK_ROOT")
    default = str(Path(root, "models")) if root else "/opt/models"
    return tuple(filter(None, (env.get("SAMPAN_MODELS") or default).split(os.pathsep)))


def _beside(env: Mapping[str, str], variable: str, name: str) -> Path | None:
    """What a variable names, else what lies beside the function's code under a name."""
    if env.get(variable):
        return Path(env[variable])
    root = env.get("LAMBDA_TASK_ROOT")
    there = Path(root, name) if root else None
    return there if there and there.exists() else None


def _digest(env: Mapping[str, str]) -> str:
    text = env.get("SAMPAN_MANIFEST_DIGEST", "")
    if text and not _DIGEST.fullmatch(text):
        raise InvalidInputError(f"SAMPAN_MANIFEST_DIGEST='{text}' is not sha256: with 64 hexadecimal digits")
    return text


def _threads(memory: int) -> int:
    """vCPUs that Lambda gives for a memory setting in MB, rounded up; 0 outside Lambda."""
    return -(-memory // MEMORY_PER_CPU)


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "")
    if (text and not text.isascii()) or (text and not text.isdigit()):
        raise InvalidInputError(f"{name}='{text}' is not a whole number")
    return int(text) if text else default
