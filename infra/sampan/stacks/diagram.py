"""A diagram of the stacks, from what `cdk synth` wrote: `python -m sampan.stacks.diagram cdk.out`.

    templates → main resources → references between them, and names of one in another → Mermaid in Markdown

Resources of a kind are one box of their stack. The same templates give the same text.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.contract.errors import InvalidInputError, SampanError
from sampan.stacks.names import STACKS

ENDING = ".template.json"
KINDS = {
    "AWS::S3::Bucket": "S3 bucket",
    "AWS::KMS::Key": "KMS key",
    "AWS::Lambda::Function": "Lambda function",
    "AWS::Lambda::Alias": "Alias",
    "AWS::Lambda::LayerVersion": "Layer",
    "AWS::Logs::LogGroup": "Log group",
    "AWS::ApiGateway::RestApi": "REST API",
    "AWS::ApiGateway::UsagePlan": "Usage plan",
    "AWS::ApiGateway::ApiKey": "API key",
    "AWS::ApiGatewayV2::Api": "HTTP API",
    "AWS::WAFv2::WebACL": "Web ACL",
    "AWS::SageMaker::Model": "SageMaker model",
    "AWS::SageMaker::EndpointConfig": "Endpoint configuration",
    "AWS::SageMaker::Endpoint": "SageMaker endpoint",
    "AWS::SageMaker::InferenceComponent": "Inference component",
    "AWS::ApplicationAutoScaling::ScalableTarget": "Scaling",
    "AWS::CodeDeploy::DeploymentGroup": "Deployment group",
    "AWS::CloudWatch::Alarm": "Alarm",
    "AWS::CloudWatch::Dashboard": "Dashboard",
    "AWS::SNS::Topic": "Topic",
}
# What is part of another resource, by the property that refers to it; it is drawn as that.
PARTS = {
    "AWS::ApiGateway::Method": "RestApiId",
    "AWS::ApiGateway::Stage": "RestApiId",
    "AWS::ApiGateway::UsagePlanKey": "UsagePlanId",
    "AWS::ApiGatewayV2::Authorizer": "ApiId",
    "AWS::ApiGatewayV2::Integration": "ApiId",
    "AWS::ApiGatewayV2::Stage": "ApiId",
    "AWS::Lambda::Version": "FunctionName",
    "AWS::WAFv2::LoggingConfiguration": "ResourceArn",
    "AWS::WAFv2::WebACLAssociation": "WebACLArn",
}
# What resources of other stacks are named by: the property with the name, and what stands before it in an ARN.
NAMES = {
    "AWS::Lambda::Function": ("FunctionName", "function:"),
    "AWS::SageMaker::Endpoint": ("EndpointName", "endpoint/"),
}


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """The resources of a kind in a stack."""

    stack: str
    kind: str

    @property
    def id(self) -> str:
        return f"{self.stack}_{re.sub('[^A-Za-z]', '', KINDS[self.kind])}"


@dataclass(frozen=True, slots=True)
class Stack:
    """The resources of one template, by logical id."""

    part: str
    resources: dict[str, dict[str, Any]]

    def boxes(self, id: str, seen: frozenset[str] = frozenset()) -> Iterator[Box]:
        """What stands for a resource: its box, that of which it is a part, or the boxes that it refers to."""
        resource = self.resources.get(id)
        if resource is None or id in seen:
            return
        kind = resource["Type"]
        if kind in KINDS:
            yield Box(self.part, kind)
            return
        inside = resource.get("Properties", {})
        for reference in sorted(set(_references(inside.get(PARTS[kind]) if kind in PARTS else inside))):
            yield from self.boxes(reference, seen | {id})


def diagram(assembly: Path) -> str:
    """Markdown with a Mermaid flowchart of a synthesised app.

    Raises:
        InvalidInputError: the folder holds no templates.
    """
    stacks = _read(assembly)
    lines = ["```mermaid", "flowchart LR"]
    for stack in stacks:
        kinds = [resource["Type"] for resource in stack.resources.values()]
        lines.append(f"    subgraph {stack.part}")
        for kind, words in KINDS.items():
            if count := kinds.count(kind):
                label = words if count == 1 else f"{words} × {count}"
                lines.append(f'        {Box(stack.part, kind).id}["{label}"]')
        lines.append("    end")
    lines += [f"    {source.id} --> {target.id}" for source, target in sorted(_edges(stacks))]
    return "\n".join([*lines, "```", ""])


def _read(assembly: Path) -> list[Stack]:
    found = {path.name.removesuffix(ENDING).rpartition("-")[2]: path for path in assembly.glob(f"*{ENDING}")}
    if not found:
        raise InvalidInputError(f"{assembly} holds no templates; run cdk synth -q -o {assembly}")
    parts = [part for part in STACKS if part in found]
    return [Stack(part, json.loads(found[part].read_bytes())["Resources"]) for part in parts]


def _edges(stacks: list[Stack]) -> set[tuple[Box, Box]]:
    named = list(_named(stacks))
    edges = set()
    for stack in stacks:
        for id, resource in stack.resources.items():
            sources = set(stack.boxes(id)) if resource["Type"] in {*KINDS, *PARTS} else set()
            inside = resource.get("Properties", {})
            targets = {box for reference in _references(inside) for box in stack.boxes(reference)}
            targets |= {box for box in _mentioned(stack, inside, named) if box.stack != stack.part}
            edges |= {(source, target) for source in sources for target in targets if source != target}
    return edges


def _named(stacks: list[Stack]) -> Iterator[tuple[str, str, Box]]:
    """Names on AWS, what stands before each in an ARN, and the boxes that they mean."""
    for stack in stacks:
        for resource in stack.resources.values():
            name, before = NAMES.get(resource["Type"], ("", ""))
            value = resource.get("Properties", {}).get(name)
            if isinstance(value, str):
                yield value, before, Box(stack.part, resource["Type"])


def _mentioned(stack: Stack, inside: Any, named: list[tuple[str, str, Box]]) -> Iterator[Box]:
    """Boxes whose names stand in the properties of a resource or in its role: in an ARN, or between quotes."""
    hidden = [stack.resources[one] for one in _references(inside) if one in stack.resources]
    text = json.dumps([inside, *(one["Properties"] for one in hidden if one["Type"] == "AWS::IAM::Role")])
    own = {name for name, _, box in named if box.stack == stack.part}
    for name, before, box in named:
        start = before if name in own else f'{before}|"'
        for found in re.finditer(rf"(?:{start}){re.escape(name)}(?![\w-])(:live)?", text):
            yield Box(box.stack, "AWS::Lambda::Alias") if found[1] and before == "function:" else box


def _references(value: Any) -> Iterator[str]:
    """Logical ids that a value refers to."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "Ref" and isinstance(inner, str):
                yield inner
            elif key == "Fn::GetAtt":
                yield inner[0] if isinstance(inner, list) else inner.partition(".")[0]
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def main(folder: str = "cdk.out") -> int:
    """Print the diagram of a synthesised app.

    Returns:
        The exit code.
    """
    try:
        print(diagram(Path(folder)), end="")
    except SampanError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
