"""Lambda functions: versions, aliases, invocations. `LambdaFunctions` asks AWS; tests have a `Functions` of their own.

Sources: https://docs.aws.amazon.com/lambda/latest/api/API_UpdateAlias.html and its neighbours.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sampan.aws.session import CloudError, Session, asked

FAILED = "FunctionError"  # code of the error where the function itself failed


@dataclass(frozen=True, slots=True)
class LambdaVersion:
    """A published version: its number (as text), and the description that it was published with."""

    number: str
    description: str


@dataclass(frozen=True, slots=True)
class LambdaAlias:
    """Where an alias points.

    Attributes:
        version: number of the version.
        revision: changes with every change of the alias; an update names the one that it means.
        weights: share of the traffic (0 to 1) that goes to another version meanwhile.
    """

    version: str
    revision: str
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Provisioned:
    """Instances that are kept ready: asked for, ready, and `IN_PROGRESS`, `READY` or `FAILED` with its reason."""

    requested: int
    ready: int
    status: str
    reason: str = ""


class Functions(Protocol):
    """What a rollout needs of Lambda. Every method may raise CloudError."""

    def versions(self, function: str) -> list[LambdaVersion]:
        """Published versions, oldest first; empty where there is no such function."""
        ...

    def alias(self, function: str, alias: str) -> LambdaAlias | None:
        """The alias; None where there is no such alias or function."""
        ...

    def move(self, function: str, alias: str, version: str, revision: str) -> LambdaAlias:
        """Point an alias at a version alone, if it is still at `revision`; one call."""
        ...

    def invoke(self, function: str, qualifier: str, event: Mapping[str, Any]) -> Any:
        """What a version or an alias answers, and waits for it.

        Raises:
            CloudError: the function failed (code `FAILED`), with what it said; or AWS refuses.
        """
        ...

    def provisioned(self, function: str, alias: str) -> Provisioned | None:
        """Instances kept ready for an alias; None where none are asked for."""
        ...


class LambdaFunctions:
    """Lambda itself."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def versions(self, function: str) -> list[LambdaVersion]:
        found: list[LambdaVersion] = []
        try:
            with asked(f"listing the versions of the function {function}"):
                pages = self._client.get_paginator("list_versions_by_function").paginate(FunctionName=function)
                for page in pages:
                    found += [LambdaVersion(one["Version"], one.get("Description", "")) for one in page["Versions"]]
        except CloudError as error:
            if error.kind != "missing":
                raise
        published = [version for version in found if version.number.isdecimal()]  # all but $LATEST
        return sorted(published, key=lambda version: int(version.number))

    def alias(self, function: str, alias: str) -> LambdaAlias | None:
        try:
            with asked(f"reading the alias {alias} of the function {function}"):
                return _alias(self._client.get_alias(FunctionName=function, Name=alias))
        except CloudError as error:
            if error.kind == "missing":
                return None
            raise

    def move(self, function: str, alias: str, version: str, revision: str) -> LambdaAlias:
        with asked(f"moving the alias {alias} of the function {function} to its version {version}"):
            return _alias(
                self._client.update_alias(
                    FunctionName=function,
                    Name=alias,
                    FunctionVersion=version,
                    RoutingConfig={"AdditionalVersionWeights": {}},
                    RevisionId=revision,
                )
            )

    def invoke(self, function: str, qualifier: str, event: Mapping[str, Any]) -> Any:
        with asked(f"invoking {function}:{qualifier}"):
            answer = self._client.invoke(FunctionName=function, Qualifier=qualifier, Payload=json.dumps(event).encode())
            payload = answer["Payload"].read()
        try:
            value = json.loads(payload)
        except ValueError as error:
            raise CloudError(f"{function}:{qualifier} answered {payload[:100]!r}, which is not JSON") from error
        if answer.get("FunctionError"):
            said = value.get("errorMessage", "no reason was given") if isinstance(value, dict) else value
            raise CloudError(f"{function}:{qualifier} failed: {said}; its log group has the details", FAILED)
        return value

    def provisioned(self, function: str, alias: str) -> Provisioned | None:
        try:
            with asked(f"reading the provisioned concurrency of {function}:{alias}"):
                told = self._client.get_provisioned_concurrency_config(FunctionName=function, Qualifier=alias)
        except CloudError as error:
            if error.kind == "missing" or error.code == "ProvisionedConcurrencyConfigNotFoundException":
                return None
            raise
        return Provisioned(
            told.get("RequestedProvisionedConcurrentExecutions", 0),
            told.get("AvailableProvisionedConcurrentExecutions", 0),
            told.get("Status", "READY"),
            told.get("StatusReason", ""),
        )

    @property
    def _client(self) -> Any:
        return self._session.client("lambda")


def _alias(answer: Mapping[str, Any]) -> LambdaAlias:
    routing = answer.get("RoutingConfig") or {}
    weights = routing.get("AdditionalVersionWeights") or {}
    return LambdaAlias(answer["FunctionVersion"], answer.get("RevisionId", ""), weights)
