"""SageMaker: what serves a heavy model, and the swap of one version for another.

An endpoint serves by its configuration, an inference component by its model; both are an `Endpoint` here.
`SageMakerEndpoints` and `SageMakerComponents` ask AWS.

Sources: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpoint.html and
API_UpdateInferenceComponent.html
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from sampan.aws.session import CloudError, Session, asked

_UNKNOWN = "could not find"  # the only mark of the ValidationException for what is not there


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What serves: SageMaker's status, name of the configuration (or model) that it has, and why it failed.

    `baking`: an update has moved traffic to its new fleet, and the old one waits whether an alarm rings.
    """

    status: str
    configuration: str
    reason: str = ""
    baking: bool = False

    @property
    def ready(self) -> bool:
        return self.status == "InService"

    @property
    def busy(self) -> bool:
        return self.status in ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration (or model) by name, and its tags."""

    name: str
    tags: dict[str, str]


class Endpoints(Protocol):
    """What a rollout needs of SageMaker. Every method may raise CloudError."""

    def endpoint(self, name: str) -> Endpoint | None:
        """The endpoint; None where there is none."""
        ...

    def configurations(self, tag: str, value: str) -> list[Configuration]:
        """What it could be given, by a tag; the newest first."""
        ...

    def update(self, name: str, configuration: str) -> None:
        """Begin to give an endpoint another configuration, with the deployment policy that it has."""
        ...


class SageMakerEndpoints:
    """Endpoints and their configurations."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def endpoint(self, name: str) -> Endpoint | None:
        told = _described(f"reading the endpoint {name}", self._client.describe_endpoint, EndpointName=name)
        if told is None:
            return None
        status, configuration = told["EndpointStatus"], told.get("EndpointConfigName", "")
        return Endpoint(status, configuration, told.get("FailureReason", ""), _baking(told))

    def configurations(self, tag: str, value: str) -> list[Configuration]:
        return list(_tagged(self._session, "EndpointConfig", "endpoint-config", tag, value))

    def update(self, name: str, configuration: str) -> None:
        """Also with the number of instances that scaling has given it; where that is none, with the configuration's:
        what nobody starts is proven by nobody.
        """
        told = _described(f"reading the endpoint {name}", self._client.describe_endpoint, EndpointName=name) or {}
        asleep = any(variant.get("DesiredInstanceCount") == 0 for variant in told.get("ProductionVariants", ()))
        own = {"ExcludeRetainedVariantProperties": [{"VariantPropertyType": "DesiredInstanceCount"}]} if asleep else {}
        with asked(f"giving the endpoint {name} the configuration {configuration}"):
            self._client.update_endpoint(
                EndpointName=name,
                EndpointConfigName=configuration,
                RetainDeploymentConfig=True,
                RetainAllVariantProperties=True,
                **own,
            )

    @property
    def _client(self) -> Any:
        return self._session.client("sagemaker")


class SageMakerComponents:
    """Inference components and their models."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def endpoint(self, name: str) -> Endpoint | None:
        told = self._component(name)
        if told is None:
            return None
        model = told.get("Specification", {}).get("ModelName", "")
        return Endpoint(told["InferenceComponentStatus"], model, told.get("FailureReason", ""))

    def configurations(self, tag: str, value: str) -> list[Configuration]:
        return list(_tagged(self._session, "Model", "model", tag, value))

    def update(self, name: str, configuration: str) -> None:
        had = (self._component(name) or {}).get("Specification", {})
        kept = {key: had[key] for key in ("ComputeResourceRequirements", "StartupParameters") if key in had}
        with asked(f"giving the inference component {name} the model {configuration}"):
            self._client.update_inference_component(
                InferenceComponentName=name, Specification={**kept, "ModelName": configuration}
            )

    def _component(self, name: str) -> dict[str, Any] | None:
        what = f"reading the inference component {name}"
        return _described(what, self._client.describe_inference_component, InferenceComponentName=name)

    @property
    def _client(self) -> Any:
        return self._session.client("sagemaker")


def _baking(told: dict[str, Any]) -> bool:
    """Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ProductionVariantStatus.html"""
    variants = told.get("PendingDeploymentSummary", {}).get("ProductionVariants", ())
    return any(each.get("Status") == "Baking" for variant in variants for each in variant.get("VariantStatus", ()))


def _described(what: str, describe: Any, **name: str) -> dict[str, Any] | None:
    try:
        with asked(what):
            told: dict[str, Any] = describe(**name)
    except CloudError as error:
        if _UNKNOWN in error.message.lower() or error.kind == "missing":
            return None
        raise
    return told


def _tagged(session: Session, kind: str, resource: str, tag: str, value: str) -> Iterator[Configuration]:
    """Configurations or models with a tag, the newest first: tags by one service, age by the other."""
    with asked(f"looking for {kind}s with the tag {tag} = {value}"):
        tags = _tags(session.client("resourcegroupstaggingapi"), f"sagemaker:{resource}", tag, value)
        pages = session.client("sagemaker").get_paginator(
            "list_endpoint_configs" if kind == "EndpointConfig" else "list_models"
        )
        for page in pages.paginate(SortBy="CreationTime", SortOrder="Descending"):
            for entry in page[f"{kind}s"]:
                arn = entry[f"{kind}Arn"].lower()
                if arn in tags:
                    yield Configuration(entry[f"{kind}Name"], tags[arn])


def _tags(client: Any, resource: str, tag: str, value: str) -> dict[str, dict[str, str]]:
    """Tags by ARN, which SageMaker has in lower case."""
    pages = client.get_paginator("get_resources").paginate(
        TagFilters=[{"Key": tag, "Values": [value]}], ResourceTypeFilters=[resource]
    )
    return {
        each["ResourceARN"].lower(): {entry["Key"]: entry["Value"] for entry in each.get("Tags", ())}
        for page in pages
        for each in page["ResourceTagMappingList"]
    }
