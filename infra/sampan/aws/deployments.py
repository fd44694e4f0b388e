"""CodeDeploy: traffic of a Lambda alias shifts from one version to another. `CodeDeployments` asks AWS.

Sources: https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_CreateDeployment.html and
https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure-hooks.html
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sampan.aws.session import Session, asked

_RUNNING = ["Created", "Queued", "InProgress", "Baking", "Ready"]


@dataclass(frozen=True, slots=True)
class Progress:
    """A deployment: CodeDeploy's status, the share of the traffic (0 to 1) on the new version, and what it says."""

    status: str
    share: float = 0.0
    reason: str = ""

    @property
    def running(self) -> bool:
        return self.status in _RUNNING

    @property
    def succeeded(self) -> bool:
        return self.status == "Succeeded"


class Deployments(Protocol):
    """What a rollout needs of CodeDeploy. Every method may raise CloudError."""

    def start(self, application: str, group: str, content: Mapping[str, Any], description: str) -> str:
        """Begin a deployment of an AppSpec; gives its id."""
        ...

    def progress(self, deployment: str) -> Progress: ...

    def running(self, application: str, group: str) -> str | None:
        """Id of the deployment that is under way; None where none is."""
        ...

    def stop(self, deployment: str) -> None:
        """Stop a deployment; the traffic goes back to the version before."""
        ...


class CodeDeployments:
    """CodeDeploy itself."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def start(self, application: str, group: str, content: Mapping[str, Any], description: str) -> str:
        with asked(f"beginning a deployment of {application}/{group}"):
            answer = self._client.create_deployment(
                applicationName=application,
                deploymentGroupName=group,
                description=description[:256],
                revision={"revisionType": "AppSpecContent", "appSpecContent": {"content": json.dumps(content)}},
            )
        return str(answer["deploymentId"])

    def progress(self, deployment: str) -> Progress:
        with asked(f"reading the deployment {deployment}"):
            told = self._client.get_deployment(deploymentId=deployment)["deploymentInfo"]
            share = self._share(deployment) if told["status"] in _RUNNING else float(told["status"] == "Succeeded")
        said = (told.get("errorInformation") or {}).get("message") or told.get("rollbackInfo", {}).get(
            "rollbackMessage", ""
        )
        return Progress(told["status"], share, said)

    def running(self, application: str, group: str) -> str | None:
        with asked(f"looking for deployments of {application}/{group}"):
            found = self._client.list_deployments(
                applicationName=application, deploymentGroupName=group, includeOnlyStatuses=_RUNNING
            )["deployments"]
        return str(found[0]) if found else None

    def stop(self, deployment: str) -> None:
        with asked(f"stopping the deployment {deployment}"):
            self._client.stop_deployment(deploymentId=deployment, autoRollbackEnabled=True)

    def _share(self, deployment: str) -> float:
        targets = self._client.list_deployment_targets(deploymentId=deployment).get("targetIds", [])
        if not targets:
            return 0.0
        told = self._client.batch_get_deployment_targets(deploymentId=deployment, targetIds=targets[:1])
        target = told["deploymentTargets"][0].get("lambdaTarget", {})
        weight = (target.get("lambdaFunctionInfo") or {}).get("targetVersionWeight", 0.0)
        return float(weight)

    @property
    def _client(self) -> Any:
        return self._session.client("codedeploy")
