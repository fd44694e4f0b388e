"""An AWS SAM template of one function behind an API: for `sam local start-api`, and for `sam deploy` as it stands.

JSON, which SAM reads as well as YAML. Source: https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/sam-specification.html
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sampan.packaging.files import replace_file
from sampan.packaging.project import Function

ApiKind = Literal["rest", "http"]

HANDLER = "sampan.serving.function.handler"
TEMP_STORAGE = 512  # MB of /tmp, as Lambda gives without extra cost
API, FUNCTION, LAYER, ENDPOINT = "Api", "Function", "Layer", "Endpoint"  # logical ids


@dataclass(frozen=True, slots=True)
class ImageArtefact:
    """An image by its tag; `sam deploy` pushes it."""

    uri: str


@dataclass(frozen=True, slots=True)
class ZipArtefact:
    """Folders or zip files: the code, and the layer that goes to /opt."""

    code: Path
    layer: Path


def sam_template(
    function: Function,
    artefact: ImageArtefact | ZipArtefact,
    *,
    api: ApiKind = "rest",
    digest: str = "",
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """The template's content.

    Args:
        api: of API Gateway, `rest` (binary both ways, payload 1.0) or `http` (payload 2.0).
        digest: `sha256:…` of the manifest that the function must find; empty: not held.
        environment: variables beside those of the function's `function.toml`.
        folder: where the template will lie; paths to a zip's parts are relative to it.
    """
    own = {"POWERTOOLS_SERVICE_NAME": function.name} | ({"SAMPAN_MANIFEST_DIGEST": digest} if digest else {})
    variables = {**own, **function.config.variables(), **(environment or {})}
    resources = {FUNCTION: _function(function, variables, api), API: _api(api)}
    properties = resources[FUNCTION]["Properties"]
    if isinstance(artefact, ImageArtefact):
        properties |= {"PackageType": "Image", "ImageUri": artefact.uri}
    else:
        runtime = f"python{function.config.python}"
        properties |= {"PackageType": "Zip", "Runtime": runtime, "Handler": HANDLER, "Layers": [{"Ref": LAYER}]}
        properties["CodeUri"] = _relative(artefact.code, folder)
        resources[LAYER] = _layer(artefact.layer, function, runtime, folder)
    parameters = {"Parameters": {ENDPOINT: _ENDPOINT}} if function.config.heavy else {}
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Transform": "AWS::Serverless-2016-10-31",
        "Description": function.config.description or f"{function.name}, packaged by sampan",
        **parameters,
        "Resources": resources,
        "Outputs": {"Url": {"Value": {"Fn::Sub": _URLS[api]}}},
    }


def write_template(
    path: Path,
    function: Function,
    artefact: ImageArtefact | ZipArtefact,
    *,
    api: ApiKind = "rest",
    digest: str = "",
    environment: Mapping[str, str] | None = None,
) -> Path:
    """Write `sam_template` to a file, whole or not at all.

    Returns:
        The file.

    Raises:
        PackagingError: it cannot be written.
    """
    template = sam_template(
        function, artefact, api=api, digest=digest, environment=environment, folder=path.parent.resolve()
    )
    return replace_file(path, json.dumps(template, indent=2).encode() + b"\n")


_ENDPOINT = {"Type": "String", "Description": "Name of the SageMaker endpoint that runs the model"}
_INVOKE = {
    "Effect": "Allow",
    "Action": "sagemaker:InvokeEndpoint",
    "Resource": {
        "Fn::Sub": f"arn:${{AWS::Partition}}:sagemaker:${{AWS::Region}}:${{AWS::AccountId}}:endpoint/${{{ENDPOINT}}}"
    },
}
_URLS = {
    "rest": f"https://${{{API}}}.execute-api.${{AWS::Region}}.${{AWS::URLSuffix}}/live/",
    "http": f"https://${{{API}}}.execute-api.${{AWS::Region}}.${{AWS::URLSuffix}}/",
}


def _function(function: Function, variables: Mapping[str, str], api: ApiKind) -> dict[str, Any]:
    config = function.config
    properties: dict[str, Any] = {
        "MemorySize": config.memory,
        "Timeout": config.timeout,
        "Architectures": [config.architecture],
        "EphemeralStorage": {"Size": TEMP_STORAGE},
        "Environment": {"Variables": dict(sorted(variables.items()))},
        "Events": {"Root": _event(api, "/"), "Proxy": _event(api, "/{proxy+}")},
    }
    if config.trace:
        properties["Tracing"] = "Active"
    if config.heavy:
        properties["Environment"]["Variables"].setdefault("SAMPAN_ENDPOINT", {"Ref": ENDPOINT})
        properties["Policies"] = [{"Statement": [_INVOKE]}]
    if config.snapstart:  # snapshots are taken of published versions alone
        properties |= {"SnapStart": {"ApplyOn": "PublishedVersions"}, "AutoPublishAlias": "live"}
    return {"Type": "AWS::Serverless::Function", "Properties": properties}


def _event(api: ApiKind, path: str) -> dict[str, Any]:
    if api == "rest":
        return {"Type": "Api", "Properties": {"RestApiId": {"Ref": API}, "Path": path, "Method": "ANY"}}
    properties = {"ApiId": {"Ref": API}, "Path": path, "Method": "ANY", "PayloadFormatVersion": "2.0"}
    return {"Type": "HttpApi", "Properties": properties}


def _api(api: ApiKind) -> dict[str, Any]:
    if api == "http":
        return {"Type": "AWS::Serverless::HttpApi"}
    # every body arrives base64, so that tensors come through; SAM writes the slash of */* as ~1
    return {"Type": "AWS::Serverless::Api", "Properties": {"StageName": "live", "BinaryMediaTypes": ["*~1*"]}}


def _layer(layer: Path, function: Function, runtime: str, folder: Path | None) -> dict[str, Any]:
    properties = {
        "ContentUri": _relative(layer, folder),
        "CompatibleRuntimes": [runtime],
        "CompatibleArchitectures": [function.config.architecture],
    }
    return {"Type": "AWS::Serverless::LayerVersion", "Properties": properties}


def _relative(path: Path, folder: Path | None) -> str:
    return os.path.relpath(path.resolve(), folder) if folder else str(path)
