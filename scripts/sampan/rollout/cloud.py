"""AWS as a rollout sees it: a few gateways in one value, so that tests bring their own.

`open_cloud` makes the real one; nothing is asked of AWS before it is needed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sampan.aws.buckets import Buckets, S3Buckets
from sampan.aws.deployments import CodeDeployments, Deployments
from sampan.aws.endpoints import Endpoints, SageMakerComponents, SageMakerEndpoints
from sampan.aws.formation import CloudFormationStacks, Stacks
from sampan.aws.functions import Functions, LambdaFunctions
from sampan.aws.objects import Objects as S3Objects
from sampan.aws.session import Session
from sampan.contract.errors import InvalidInputError, SampanError
from sampan.stacks.config import Deployable, StageConfig
from sampan.store import open_store
from sampan.store.protocol import Store


class RolloutError(SampanError):
    """Raise when a deployment, or a move of traffic, does not come to its end; says what to try."""


class Objects(Protocol):
    """Small objects of one bucket, as `sampan.aws.objects.Objects`. Every method may raise CloudError."""

    def listed(self, folder: str) -> list[str]: ...

    def read(self, key: str) -> tuple[bytes, str] | None: ...

    def put(self, key: str, content: bytes, etag: str | None) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """Gateways of one account and region.

    Attributes:
        region: name of the region; account: its twelve digits. Either may raise CloudError.
        endpoints: of SageMaker; components: the same of inference components, on endpoints that scale to zero.
        objects: the objects of a bucket; store: the model store at a location.
        pause: waits for some seconds between two questions.
    """

    functions: Functions
    stacks: Stacks
    deployments: Deployments
    endpoints: Endpoints
    components: Endpoints
    buckets: Buckets
    region: Callable[[], str]
    account: Callable[[], str]
    objects: Callable[[str], Objects]
    store: Callable[[str], Store]
    pause: Callable[[float], None] = time.sleep

    def endpoints_of(self, function: Deployable) -> Endpoints:
        """What serves a heavy function."""
        return self.components if function.from_zero else self.endpoints


def open_cloud(config: StageConfig) -> Cloud:
    """AWS, by the credentials of this process and the region of a stage.

    Raises:
        CloudError: boto3 is not installed, or a profile is not there.
    """
    session = Session(config.region)
    return Cloud(
        functions=LambdaFunctions(session),
        stacks=CloudFormationStacks(session),
        deployments=CodeDeployments(session),
        endpoints=SageMakerEndpoints(session),
        components=SageMakerComponents(session),
        buckets=S3Buckets(session),
        region=lambda: session.region,
        account=session.account,
        objects=lambda bucket: S3Objects(bucket, session=session),
        store=open_store,
    )


def check_account(cloud: Cloud, config: StageConfig) -> tuple[str, str]:
    """Account and region that the credentials are for.

    Raises:
        InvalidInputError: the stage is of another account.
        CloudError: no credentials, expired ones, no region, or AWS cannot be reached.
    """
    region, account = cloud.region(), cloud.account()
    if config.account not in (None, account):
        raise InvalidInputError(
            f"these credentials are of the account {account}, but the stage is of {config.account}; choose a profile "
            "of that account with AWS_PROFILE"
        )
    return account, region
