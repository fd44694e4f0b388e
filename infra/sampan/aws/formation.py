"""CloudFormation stacks: state, template, outputs, why they failed. `CloudFormationStacks` asks AWS.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_Operations.html
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sampan.aws.session import CloudError, Session, asked

_UNKNOWN = "does not exist"  # the only mark of the ValidationError for a stack that is not there
_CANCELLED = "cancelled"  # resources that were given up since another one failed


@dataclass(frozen=True, slots=True)
class DeployedStack:
    """A stack as AWS has it; `status` is CloudFormation's, such as `UPDATE_COMPLETE`."""

    name: str
    status: str
    reason: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        return self.status.endswith("_IN_PROGRESS")

    @property
    def sound(self) -> bool:
        """Whether its template is what is deployed."""
        return self.status in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE")


@dataclass(frozen=True, slots=True)
class Failed:
    """A resource that could not be made, changed or deleted, and why."""

    resource: str
    kind: str
    reason: str


class Stacks(Protocol):
    """What a rollout needs of CloudFormation. Every method may raise CloudError."""

    def stack(self, name: str) -> DeployedStack | None:
        """The stack; None where there is none."""
        ...

    def template(self, name: str) -> dict[str, Any] | None:
        """The template as it was deployed; None where there is no stack, or it is not JSON."""
        ...

    def failures(self, name: str) -> list[Failed]:
        """What failed in the stack's last change, the first cause first."""
        ...

    def resources(self, name: str, kind: str) -> list[str]:
        """Physical ids of the stack's resources of a type; empty where there is no stack."""
        ...

    def delete(self, name: str) -> None:
        """Begin to delete the stack; it may be gone already."""
        ...


class CloudFormationStacks:
    """CloudFormation itself."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def stack(self, name: str) -> DeployedStack | None:
        try:
            with asked(f"reading the stack {name}"):
                told = self._client.describe_stacks(StackName=name)["Stacks"][0]
        except CloudError as error:
            if _UNKNOWN in error.message:
                return None
            raise
        if told["StackStatus"] == "DELETE_COMPLETE":
            return None
        outputs = {entry["OutputKey"]: entry["OutputValue"] for entry in told.get("Outputs", ())}
        return DeployedStack(name, told["StackStatus"], told.get("StackStatusReason", ""), outputs)

    def template(self, name: str) -> dict[str, Any] | None:
        try:
            with asked(f"reading the template of the stack {name}"):
                body = self._client.get_template(StackName=name, TemplateStage="Original")["TemplateBody"]
        except CloudError as error:
            if _UNKNOWN in error.message:
                return None
            raise
        try:
            template: dict[str, Any] = json.loads(body if isinstance(body, str) else json.dumps(body))
        except ValueError:
            return None
        return template

    def failures(self, name: str) -> list[Failed]:
        failed: list[Failed] = []
        with asked(f"reading the events of the stack {name}"):
            for page in self._client.get_paginator("describe_stack_events").paginate(StackName=name):
                for event in page["StackEvents"]:  # the newest first
                    if _begins(event):
                        return failed[::-1]
                    failed += _failed(event)
        return failed[::-1]

    def resources(self, name: str, kind: str) -> list[str]:
        try:
            with asked(f"listing the resources of the stack {name}"):
                pages = self._client.get_paginator("list_stack_resources").paginate(StackName=name)
                found = [each for page in pages for each in page["StackResourceSummaries"]]
        except CloudError as error:
            if _UNKNOWN in error.message:
                return []
            raise
        return [each["PhysicalResourceId"] for each in found if each["ResourceType"] == kind]

    def delete(self, name: str) -> None:
        with asked(f"deleting the stack {name}"):
            self._client.delete_stack(StackName=name)

    @property
    def _client(self) -> Any:
        return self._session.client("cloudformation")


def _begins(event: Mapping[str, Any]) -> bool:
    """Whether an event is where the stack's last change began."""
    started = event.get("ResourceStatus") in ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS")
    return started and event.get("LogicalResourceId") == event.get("StackName")


def _failed(event: Mapping[str, Any]) -> list[Failed]:
    reason = event.get("ResourceStatusReason", "")
    if not str(event.get("ResourceStatus", "")).endswith("_FAILED") or _CANCELLED in reason.lower():
        return []
    return [Failed(event.get("LogicalResourceId", ""), event.get("ResourceType", ""), reason)]
