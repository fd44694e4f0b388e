"""What is wrong with the content of a `function.toml`: first its shape, key by key, then what the types cannot say."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from sampan.contract.errors import InvalidInputError
from sampan.contract.function import INSTANCE, Budgets, Endpoint, FunctionConfig
from sampan.contract.metrics import parse_gate
from sampan.store import parse_reference

OLDEST, SNAPSTART = (
    (3, 11),
    (3, 12),
)  # Python: Sampan's own, and https://docs.aws.amazon.com/lambda/latest/dg/snapstart.html

# A g first behind the generation: https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-type-names.html
GRAVITON = r"ml\.[a-z]+\d+g"

# https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
VARIABLE = r"[A-Za-z][A-Za-z0-9_]+"
RESERVED = frozenset(
    (
        *("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV", "AWS_LAMBDA_FUNCTION_NAME"),
        *("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION", "AWS_LAMBDA_INITIALIZATION_TYPE"),
        *("AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_LAMBDA_RUNTIME_API"),
        *("AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        *("LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR"),
    )
)
MAX_ENVIRONMENT = 4096  # bytes of all names and values


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one key: its path in the file, the words for it, and the text in its value to look for."""

    path: tuple[str, ...]
    words: str
    value: str = ""


def problems(content: dict[str, Any], file: Path) -> list[Problem]:
    """All that is wrong, in the order of the checks; empty: `FunctionConfig` takes it.

    Args:
        file: the `function.toml`; its folder holds the files that it names.
    """
    shape = list(_shape(content, FunctionConfig))
    wrong = {problem.path[0] for problem in shape}
    sound = {key: value for key, value in content.items() if key not in wrong}
    return [*shape, *_meaning(sound, file.parent), *(() if "endpoint" in wrong else _machine(sound))]


def _shape(table: Mapping[str, Any], kind: type[msgspec.Struct], above: tuple[str, ...] = ()) -> Iterator[Problem]:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for key, value in table.items():
        path = (*above, key)
        if key not in fields:
            yield Problem(path, _unknown(path, list(fields)))
        elif fields[key].type in (Budgets, Endpoint) and isinstance(value, dict):
            yield from _shape(value, fields[key].type, path)
        elif not _fits(value, fields[key].type):
            yield from _misfit(path, value, inspect.type_info(fields[key].type))
    for name, field in fields.items():
        if field.required and name not in table:
            yield Problem((name,), f'{name} is missing; write {name} = "REF", one of `sampan list`')


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _misfit(path: tuple[str, ...], value: Any, kind: inspect.Type) -> Iterator[Problem]:
    if isinstance(kind, inspect.DictType) and isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(item, str):
                yield from _misfit((*path, key), item, kind.value_type)
    else:
        yield Problem(path, f"{'.'.join(path)} must be {_allowed(kind)}, got {_shown(value)}")


def _unknown(path: tuple[str, ...], known: list[str]) -> str:
    close = get_close_matches(path[-1], known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known)}"
    where = f" in [{'.'.join(path[:-1])}]" if path[1:] else ""
    return f"there is no key '{path[-1]}'{where} ({hint})"


def _allowed(kind: inspect.Type) -> str:
    """What a value may be, for a person."""
    match kind:
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType(values=values):
            return f"one of {', '.join(map(str, values))}"
        case inspect.FloatType(gt=over):
            return f"a number over {over:g}"
        case inspect.IntType(gt=int(over)):
            return f"a whole number over {over}"
        case inspect.IntType(ge=least, le=most):
            return f"a whole number from {least} to {most}" if most else f"a whole number of {least} or more"
        case inspect.StrType(pattern=pattern) if pattern == INSTANCE:
            return 'a type of SageMaker\'s instances in quotes, such as "ml.g5.xlarge"'
        case inspect.StrType(pattern=str()):
            return 'a version in quotes, such as "3.12"'
        case inspect.StrType(min_length=least):
            return f"a text in quotes{', not empty' if least else ''}"
        case inspect.VarTupleType(item_type=item):
            return f"a list in [ ], each {_allowed(item)}"
        case inspect.UnionType(types=types):
            return _allowed(next(each for each in types if not isinstance(each, inspect.NoneType)))
        case inspect.DictType():
            return 'a table of NAME = "text"'
    return "a table"


def _shown(value: Any) -> str:
    text = str(value) if isinstance(value, float) else msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:60]}…"


def _meaning(content: Mapping[str, Any], folder: Path) -> Iterator[Problem]:
    if "model" in content:
        yield from _refused("model", content["model"], parse_reference)
    for gate in content.get("gates", ()):
        yield from _refused("gates", gate, parse_gate)
    yield from _python(content.get("python"), content.get("snapstart"), content.get("placement", ""))
    yield from _environment(content.get("environment", {}))
    fallback = content.get("endpoint", {}).get("fallback", "")
    if fallback:
        for problem in _refused("fallback", fallback, parse_reference):
            yield Problem(("endpoint", "fallback"), problem.words, fallback)
    if "pipeline" in content:
        yield from _pipeline(content["pipeline"], folder)


def _refused(key: str, text: str, parse: Any) -> Iterator[Problem]:
    try:
        parse(text)
    except InvalidInputError as error:
        yield Problem((key,), error.message, text)


def _python(version: str | None, snapstart: bool | None, placement: str) -> Iterator[Problem]:
    number = tuple(map(int, (version or FunctionConfig(model="-").python).split(".")))
    if number < OLDEST:
        yield Problem(("python",), f'Sampan needs Python {OLDEST[0]}.{OLDEST[1]} or newer, got "{version}"')
    if not snapstart:
        return
    if number < SNAPSTART:
        yield Problem(("snapstart",), f'snapstart needs Python 3.12 or newer; write python = "3.12", not "{version}"')
    if placement.startswith("sagemaker"):
        yield Problem(
            ("snapstart",), f"snapstart is Lambda's; take it out, or choose another placement than {placement}"
        )


def _machine(content: Mapping[str, Any]) -> Iterator[Problem]:
    """Whether the endpoint's instances run what the function's architecture is built for."""
    if not content.get("placement", "").startswith("sagemaker"):
        return
    endpoint = msgspec.convert(content.get("endpoint", {}), Endpoint)
    path, instance, architecture = ("endpoint", "instance"), endpoint.instance, content.get("architecture", "x86_64")
    arm = re.match(GRAVITON, instance) is not None
    if arm and endpoint.gpu:
        yield Problem(
            path,
            f"{instance} has GPUs beside an arm64 processor, for which onnxruntime has no wheels; "
            'take one of x86_64, such as "ml.g5.xlarge"',
        )
    elif arm != (architecture == "arm64"):
        machine = "arm64" if arm else "x86_64"
        yield Problem(
            path,
            f'{instance} is {machine}, and architecture is "{architecture}"; write '
            f'architecture = "{machine}", or choose another instance',
        )


def _environment(variables: Mapping[str, str]) -> Iterator[Problem]:
    for name in variables:
        path = ("environment", name)
        if name in RESERVED:
            yield Problem(path, f"Lambda sets {name} itself; take it out, or choose another name")
        elif not re.fullmatch(VARIABLE, name, re.ASCII):
            yield Problem(path, f"'{name}' is no variable of Lambda's: two or more of A-Z, 0-9 and _, a letter first")
    size = sum(len(name.encode()) + len(value.encode()) for name, value in variables.items())
    if size > MAX_ENVIRONMENT:
        words = f"the environment has {size:,} bytes, over Lambda's {MAX_ENVIRONMENT:,}; put long texts into a file"
        yield Problem(("environment",), words)


def _pipeline(name: str, folder: Path) -> Iterator[Problem]:
    file = folder / name
    if not file.resolve().is_relative_to(folder.resolve()):
        yield Problem(("pipeline",), f"pipeline '{name}' lies outside {folder}; copy the file there")
    elif file.suffix != ".py" or not file.is_file():
        yield Problem(
            ("pipeline",), f"pipeline '{name}' is no Python file of {folder}; `sampan new --pipeline` writes one"
        )
