"""What `sampan package` made, as a stack takes it; what is not packaged synthesises, and cannot be deployed."""

from pathlib import Path

from aws_cdk import Annotations, CfnRule, CfnRuleAssertion, Fn, Stack
from aws_cdk.aws_ecr_assets import Platform
from constructs import Construct

from sampan.contract.errors import InvalidInputError
from sampan.stacks.config import Deployable, PackagedEndpoint
from sampan.stacks.names import logical

UNBUILT = Path(__file__).parent / "unbuilt"
PLATFORMS = {"x86_64": Platform.LINUX_AMD64, "arm64": Platform.LINUX_ARM64}


def made(deployable: Deployable, what: str) -> Path:
    """A file or folder that `sampan package` made of a function.

    Raises:
        InvalidInputError: it is not there.
    """
    path = deployable.folder / what
    if not path.exists():
        raise InvalidInputError(f"there is no {path}; run: sampan package {deployable.name}")
    return path


def image_folder(deployable: Deployable) -> Path:
    """What the function's image is built from; where it is not packaged, a folder that cannot be built."""
    return made(deployable, "context") if deployable.packaged else UNBUILT


def endpoint_folder(deployable: Deployable) -> Path:
    """What the image of its endpoint is built from; where it is not packaged, a folder that cannot be built."""
    return made(deployable, "endpoint") if packaged_endpoint(deployable) else UNBUILT


def packaged_endpoint(deployable: Deployable) -> PackagedEndpoint | None:
    """What is packaged of a heavy function's endpoint; None where nothing is packaged.

    Raises:
        InvalidInputError: the function was packaged without one.
    """
    packaged = deployable.packaged
    if packaged is None or packaged.endpoint:
        return packaged.endpoint if packaged else None
    raise InvalidInputError(
        f"{deployable.name} was packaged by an older Sampan or for another placement, so its endpoint is not packaged; "
        f"run: sampan package {deployable.name}"
    )


def refuse_deployment(scope: Construct, deployable: Deployable) -> None:
    """The stack can be synthesised but not deployed: CloudFormation evaluates the rule before anything else."""
    name = deployable.name
    words = f"{name} is not packaged; run: sampan package {name}"
    never = CfnRuleAssertion(assert_=Fn.condition_equals("packaged", "not packaged"), assert_description=words)
    CfnRule(Stack.of(scope), f"{logical(name)}IsPackaged", assertions=[never])
    Annotations.of(scope).add_warning_v2("sampan:not-packaged", words)
