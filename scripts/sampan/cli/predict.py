"""`sampan predict`: one answer, through the same handler that Lambda runs."""

from pathlib import Path
from typing import Any

import click

from sampan.cli.output import print_json, transfer_bar

_EPILOG = """\b
Examples:
  sampan predict magika --input README.md
  sampan predict minilm --input request.json
  sampan predict model:3 --input inputs.npz"""


@click.command(epilog=_EPILOG)
@click.argument("ref")
@click.option(
    "--input",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A request (.json, of any of the protocols), tensors by name (.npz), or a file for the model's pipeline.",
)
@click.option("-o", "--output", type=click.Choice(["json"]), default="json", help="How to print.")
@click.pass_obj
def command(store: str, ref: str, path: Path, output: str) -> None:
    """Answer one prediction through the Lambda path and print it as JSON.

    A .json file may be a V2 request ('inputs' with names), {"input": …} or {"inputs": […]} for the pipeline,
    {"instances": …}, {"input_data": …}, or any other file of text or bytes is one item for the pipeline.
    """
    from sampan.store import open_store

    version = open_store(store, transfer_bar()).find(ref)
    print_json(ask(version.folder, version.manifest, path))


def ask(folder: Path, manifest: Any, path: Path) -> Any:
    """The parsed answer of a version to a file.

    Raises:
        InvalidInputError: with the sentence of the answer, when it is not 200.
    """
    import orjson

    from sampan.contract.errors import InvalidInputError
    from sampan.local.log import QuietObserver
    from sampan.local.requests import invocation, rest_event
    from sampan.serving.handler import LambdaHandler
    from sampan.serving.repository import load
    from sampan.serving.settings import Settings

    settings = Settings(max_payload=2**31)
    handler = LambdaHandler(load([folder]), settings, QuietObserver())
    result = handler(rest_event(_request(manifest, path)), invocation(900))
    answer = orjson.loads(result["body"])
    if result["statusCode"] != 200:
        raise InvalidInputError(f"{path}: {answer['error']}")
    return answer


def _request(manifest: Any, path: Path) -> Any:
    from sampan.local.requests import HttpRequest

    data = path.read_bytes()
    if path.suffix == ".npz":
        return HttpRequest("POST", f"/v2/models/{manifest.name}/infer", "", [], _tensors(path, manifest))
    route, kind = f"/models/{manifest.name}/predict", "application/octet-stream"
    if path.suffix == ".json":
        route, kind = _json_route(data, manifest), "application/json"
    return HttpRequest("POST", route, "", [("Content-Type", kind)], data)


def _json_route(data: bytes, manifest: Any) -> str:
    """Which protocol a JSON file speaks, by its keys."""
    from sampan.contract.errors import InvalidInputError
    from sampan.serving.codecs import json

    document = json.read(data, json.plain)
    if not isinstance(document, dict) or not document:
        raise InvalidInputError("the file must hold a JSON object")
    if "instances" in document:
        return f"/v1/models/{manifest.name}:predict"
    if "input_data" in document:
        return "/predict"
    inputs = document.get("inputs")
    named = isinstance(inputs, list) and inputs and isinstance(inputs[0], dict) and "datatype" in inputs[0]
    return f"/v2/models/{manifest.name}/infer" if named else f"/models/{manifest.name}/predict"


def _tensors(path: Path, manifest: Any) -> bytes:
    from sampan.serving.codecs import json
    from sampan.store.samples import read_single

    arrays = read_single(path, manifest.signature)
    inputs = [
        {
            "name": spec.name,
            "datatype": spec.datatype,
            "shape": list(arrays[spec.name].shape),
            "data": json.flat(arrays[spec.name], spec.datatype),
        }
        for spec in manifest.signature.inputs
    ]
    return json.dumps({"inputs": inputs})
