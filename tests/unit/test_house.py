"""The rules of the house: what may import what, and what a cold start may load."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOTS = [ROOT / folder for folder in ("layers/handler/python", "model_store", "scripts", "infra")]
LAYER = ROOTS[0] / "sampan"
FILES = sorted(file for root in ROOTS for file in (root / "sampan").rglob("*.py"))

# What of ours each part may import; `cli` and `local` may import everything, and nothing but `cli` imports `cli`.
EVERYTHING = frozenset(
    (
        "contract",
        "serving",
        "store",
        "convert",
        "compress",
        "distill",
        "packaging",
        "emulation",
        "placement",
        "tuning",
        "rollout",
        "local",
        "aws",
        "costs",
        "stacks",
    )
)
MAY_IMPORT = {
    "contract": frozenset(),
    "serving": frozenset(("contract",)),
    "convert": frozenset(("contract", "serving", "store")),
    "store": frozenset(("contract", "serving", "convert", "aws")),
    "compress": frozenset(("contract", "serving", "store")),
    "distill": frozenset(("contract", "serving", "store", "compress")),
    "packaging": frozenset(("contract", "serving", "store")),
    "emulation": frozenset(("contract", "serving", "store", "packaging", "local")),
    "placement": frozenset(("contract", "serving", "store", "costs")),
    "tuning": frozenset(("contract", "serving", "store", "packaging", "emulation", "local", "costs")),
    "aws": frozenset(("contract",)),
    "costs": frozenset(("contract",)),
    "stacks": frozenset(("contract", "costs")),
    "rollout": frozenset(("contract", "serving", "store", "packaging", "emulation", "local", "aws", "costs", "stacks")),
    "local": EVERYTHING,
    "cli": EVERYTHING | {"cli"},
}
NEVER_IN_A_LAYER = {"onnx", "click", "rich", "uvicorn", "boto3", "torch"}
MAY_IN_A_LAYER = {  # in modules that few functions import
    "serving/sealed.py": {"boto3"},
    "serving/remote/client.py": {"boto3"},
    "serving/listening.py": {"uvicorn"},
}
NOT_AT_THE_START = {
    *("fastapi", "starlette", "pydantic", "mangum", "asyncio", "tokenizers", "PIL"),
    *("sampan.serving.invocations", "boto3", "botocore.session", "tenacity", "aws_xray_sdk", "onnx", "click", "rich"),
}


def part(file: Path) -> str:
    return file.relative_to(next(root for root in ROOTS if file.is_relative_to(root))).parts[1].removesuffix(".py")


def imports(file: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "sampan")


def names(file: Path) -> set[str]:
    return {module.split(".")[0] for module in imports(file)}


def python(code: str, *arguments: str) -> str:
    """Standard output of a fresh interpreter."""
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_sampan_is_a_namespace():
    assert FILES
    assert [root for root in ROOTS if (root / "sampan" / "__init__.py").exists()] == []
    assert list(ROOT.glob("*/sampan/__init__.py")) == []


@pytest.mark.parametrize("name", sorted({part(file) for file in FILES}))
def test_imports_only_go_down(name: str):
    allowed = MAY_IMPORT[name] | {name}
    for file in FILES:
        if part(file) == name:
            ours = {module.split(".")[1] for module in imports(file) if module.startswith("sampan.")}
            assert ours <= allowed, f"{file.relative_to(ROOT)} imports {sorted(ours - allowed)}"


def test_a_layer_needs_nothing_of_the_tool():
    for file in LAYER.rglob("*.py"):
        may = MAY_IN_A_LAYER.get(file.relative_to(LAYER).as_posix(), set())
        assert not names(file) & (NEVER_IN_A_LAYER - may), file


def test_only_the_settings_read_the_environment():
    for file in LAYER.rglob("*.py"):
        touches = [
            node
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "putenv")
        ]
        assert not touches or file.name == "settings.py", file


def test_only_the_session_names_onnxruntime():
    assert [file.name for file in LAYER.rglob("*.py") if "onnxruntime" in names(file)] == ["session.py"]


def test_few_modules_name_boto3():
    named = {str(file.relative_to(ROOT)) for file in FILES if names(file) & {"boto3", "botocore"}}
    assert named == {
        "infra/sampan/aws/session.py",
        "infra/sampan/stacks/hook/index.py",  # a function of its own
        *(f"layers/handler/python/sampan/{file}" for file, may in MAY_IN_A_LAYER.items() if "boto3" in may),
    }


def test_the_store_loads_no_boto3():
    loaded = python("import sys, sampan.store, sampan.store.s3, sampan.aws.objects; print(*sys.modules)").split()
    assert "sampan.aws.session" in loaded
    assert {"boto3", "botocore"} & set(loaded) == set()


def test_the_handler_starts_without_what_it_may_never_need():
    loaded = set(python("import sys, sampan.serving.handler; print(*sys.modules)").split())
    assert "onnxruntime" not in loaded  # nor does a function whose model runs elsewhere need it
    assert loaded & NOT_AT_THE_START == set()


def test_help_is_instant():
    code = """
import sys
from sampan.cli.main import main
main(["--help"], standalone_mode=False)
print("loaded", *sys.modules)
"""
    loaded = set(python(code).split("loaded ")[-1].split())
    assert "click" in loaded
    assert loaded & {"numpy", "onnxruntime", "onnx", "rich", "orjson", "msgspec", "asyncio", "uvicorn"} == set()


# Refuses every module that is neither Python's, nor ours, nor of a distribution in the closure of [runtime]; then
# answers through both lanes and the ASGI app.
RUNTIME_ALONE = """
import sys
from importlib import metadata
from importlib.abc import MetaPathFinder
from packaging.requirements import Requirement

def wanted(requirement, extras):
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)

closure, queue = set(), [("sampan", frozenset(["runtime"]))]
while queue:
    name, extras = queue.pop()
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        if name == "sampan" and "extra ==" not in text:
            continue  # the tool's own
        if wanted(requirement, extras or {""}) and (requirement.name, frozenset(requirement.extras)) not in closure:
            closure.add((requirement.name, frozenset(requirement.extras)))
            queue.append((requirement.name, frozenset(requirement.extras)))

canonical = lambda name: name.lower().replace("_", "-").replace(".", "-")
inside = {canonical(name) for name, _ in closure}
owners = metadata.packages_distributions()
known = set(sys.modules)

class Gate(MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        top = fullname.partition(".")[0]
        if top in sys.stdlib_module_names or top in known or top == "sampan" or top.startswith("_sysconfigdata"):
            return None
        if any(canonical(owner) in inside for owner in owners.get(top, ())):
            return None
        raise ModuleNotFoundError(f"{fullname} is not in the closure of [runtime]", name=fullname)

for name in ("packaging", "yaml", "click", "onnx", "rich", "uvicorn", "PIL", "tokenizers", "hypothesis"):
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]
    known.discard(name)
sys.meta_path.insert(0, Gate())
try:
    import click
except ModuleNotFoundError:
    pass
else:
    raise AssertionError("the gate is open")

from sampan.serving.handler import LambdaHandler
from sampan.serving.observe import LambdaObserver
from sampan.serving.repository import load
from sampan.serving.settings import Settings
import sampan.serving.asgi
import json

handler = LambdaHandler(load([sys.argv[1]]), Settings(), LambdaObserver("f", sys.stderr))
body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]})
for method, path in (("POST", "/v2/models/linear/infer"), ("GET", "/openapi.json"), ("GET", "/")):
    event = {"requestContext": {"http": {"method": method}}, "rawPath": path, "headers": {}, "body": body}
    result = handler(event, None)
    print(result["statusCode"])
"""


def test_serving_needs_the_runtime_distributions_alone(zoo: Path):
    assert python(RUNTIME_ALONE, str(zoo / "linear")).split() == ["200"] * 3
