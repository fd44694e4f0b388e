"""A deployed stage, and what runs on it: which Lambda version serves which model version."""

from dataclasses import dataclass

from sampan.aws.functions import LambdaAlias
from sampan.contract.errors import NotFoundError
from sampan.rollout.cloud import Cloud, RolloutError
from sampan.rollout.plan import Deployed
from sampan.rollout.releases import Releases
from sampan.stacks.config import Deployable, Project
from sampan.stacks.names import BUCKET, CANDIDATE, LIVE, MODELS, described
from sampan.store.protocol import Alias, Store
from sampan.store.reference import Reference, parse_reference


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage that is deployed: the project, AWS, the stage's model store and release records."""

    project: Project
    cloud: Cloud
    store: Store
    releases: Releases

    def physical(self, function: Deployable) -> str:
        """Name of its Lambda function."""
        return self.project.names.function(function.name)

    def versions(self, function: Deployable) -> list[Deployed]:
        """Published Lambda versions, oldest first."""
        found = self.cloud.functions.versions(self.physical(function))
        return [_deployed(version.number, version.description) for version in found]

    def alias(self, function: Deployable, alias: str = LIVE) -> LambdaAlias | None:
        return self.cloud.functions.alias(self.physical(function), alias)

    def at(self, function: Deployable, alias: str) -> Deployed | None:
        """The Lambda version that an alias points at; None where there is no alias.

        Raises:
            RolloutError: that version is deleted.
        """
        found = self.alias(function, alias)
        if found is None:
            return None
        there = [version for version in self.versions(function) if version.version == found.version]
        if not there:
            name = self.physical(function)
            raise RolloutError(
                f"the alias {alias} of {name} points at its version {found.version}, which is deleted; "
                f"run `sampan promote {function.model} --stage {self.project.names.stage}`, or `sampan deploy`"
            )
        return there[0]

    def stored(self, function: Deployable) -> Alias | None:
        """The live alias of the model in the stage's store."""
        return self.store.aliases(function.model).get(LIVE)


def open_stage(project: Project, cloud: Cloud) -> Stage:
    """The stage of a project as it is deployed.

    Raises:
        NotFoundError: its store is not deployed yet.
        CloudError: AWS cannot be asked.
    """
    name = project.names.stack("Store")
    stack = cloud.stacks.stack(name)
    bucket = stack.outputs.get(BUCKET) if stack else None
    if bucket is None:
        raise NotFoundError(
            f"the stage '{project.names.stage}' is not deployed: there is no stack {name} with a bucket; "
            f"run `sampan deploy --stage {project.names.stage}`"
        )
    return Stage(project, cloud, cloud.store(f"s3://{bucket}/{MODELS}"), Releases(cloud.objects(bucket)))


def function_of(project: Project, model: str) -> Deployable:
    """The function of a stage that serves a model.

    Raises:
        NotFoundError: none does; says which models there are.
    """
    for function in project.functions:
        if function.model == model:
            return function
    served = ", ".join(function.model for function in project.functions)
    raise NotFoundError(
        f"no function of the stage '{project.names.stage}' serves the model '{model}'; there are {served}"
    )


def find_target(stage: Stage, ref: str) -> tuple[Deployable, Deployed]:
    """The function and the newest Lambda version that a REF means: `magika` and `magika@candidate` are what the
    candidate alias points at, `magika@live` what is live, `magika:2` the version with that model.

    Raises:
        NotFoundError: no such model, or that version of it is not deployed; says which are.
    """
    reference = parse_reference(ref)
    function = function_of(stage.project, reference.name)
    if reference.version is not None:
        return function, version_of(stage, function, reference)
    target = stage.at(function, reference.alias or CANDIDATE)
    if target is None or target.model is None:
        raise NotFoundError(f"{ref} is not deployed: the function {stage.physical(function)} has no such alias")
    return function, target


def version_of(stage: Stage, function: Deployable, reference: Reference) -> Deployed:
    """The newest Lambda version with a model version.

    Raises:
        NotFoundError: there is none; says which models are deployed.
    """
    versions = stage.versions(function)
    for version in reversed(versions):
        if version.model == str(reference):
            return version
    there = ", ".join(dict.fromkeys(version.model for version in versions if version.model)) or "none"
    raise NotFoundError(
        f"{reference} is not deployed on the stage '{stage.project.names.stage}' (there: {there}); set it as 'model' "
        f"in functions/{function.name}/function.toml and run `sampan deploy`"
    )


def _deployed(number: str, description: str) -> Deployed:
    model, digest = described(description) or (None, None)
    return Deployed(number, model, digest)
