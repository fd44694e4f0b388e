"""AWS in memory, behind the gateways' protocols: what it would do, and where it breaks."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import models
from sampan.aws.buckets import Content
from sampan.aws.deployments import Progress
from sampan.aws.endpoints import Configuration, Endpoint
from sampan.aws.formation import DeployedStack, Failed
from sampan.aws.functions import FAILED, LambdaAlias, LambdaVersion, Provisioned
from sampan.aws.session import CloudError
from sampan.local.log import QuietObserver
from sampan.rollout.assembly import read_assembly
from sampan.rollout.cloud import Cloud
from sampan.rollout.targets import Stage, open_stage
from sampan.serving.handler import LambdaHandler
from sampan.serving.repository import load
from sampan.serving.settings import Settings
from sampan.stacks.config import Project, read_project
from sampan.stacks.names import BUCKET, KEY, URL, describe, described
from sampan.store import LocalStore
from sampan.store.add import add_model
from sampan.store.protocol import Store

ACCOUNT, REGION, MODELS_BUCKET = "123456789012", "us-east-1", "sampan-dev-models"
DIGEST = "sha256:" + "0" * 64
CDK = """
import json, pathlib, shutil, sys
here = pathlib.Path(__file__).parent
verb = sys.argv[1]
(here / "calls.jsonl").open("a").write(json.dumps(sys.argv[1:]) + "\\n")
words = here / f"{verb}.txt"
line = "sampan-dev-Serve |  1/2 | 9:04:25 AM | CREATE_COMPLETE | AWS::IAM::Role | Role (Role1)"
print(words.read_text() if words.exists() else line)
if (here / f"{verb}.fails").exists():
    sys.exit(1)
if verb == "synth":
    shutil.copytree(here / "templates", sys.argv[sys.argv.index("-o") + 1], dirs_exist_ok=True)
else:
    out = pathlib.Path(sys.argv[sys.argv.index("-a") + 1])
    shutil.copytree(out, here / "deployed", dirs_exist_ok=True)
"""


class CutOffError(BaseException):
    """The process is killed here."""


@dataclass
class Trip:
    """Counts what changes something on AWS, and cuts the process off after one of them; None: never."""

    after: int | None = None
    count: int = 0

    def step(self) -> None:
        self.count += 1
        if self.count == self.after:
            raise CutOffError


class FakeFunctions:
    """Lambda: versions that answer with the models of a store; `spoiled` versions answer with another model."""

    def __init__(self, store: Store, trip: Trip) -> None:
        self.published: dict[str, list[LambdaVersion]] = {}
        self.aliases: dict[tuple[str, str], LambdaAlias] = {}
        self.spoiled: dict[tuple[str, str], str] = {}
        self.broken: set[tuple[str, str]] = set()
        self.moves: list[tuple[str, str, str]] = []
        self.ready: list[Provisioned] = []
        self.invoked: list[str] = []
        self._store = store
        self._trip = trip

    def publish(self, function: str, ref: str) -> str:
        """A new version that serves a model."""
        versions = self.published.setdefault(function, [])
        versions.append(LambdaVersion(str(len(versions) + 1), describe(ref, DIGEST)))
        return versions[-1].number

    def point(self, function: str, alias: str, version: str, **weights: float) -> None:
        before = self.aliases.get((function, alias))
        revision = str(int(before.revision) + 1) if before else "1"
        self.aliases[function, alias] = LambdaAlias(version, revision, weights)

    def versions(self, function: str) -> list[LambdaVersion]:
        return list(self.published.get(function, []))

    def alias(self, function: str, alias: str) -> LambdaAlias | None:
        return self.aliases.get((function, alias))

    def move(self, function: str, alias: str, version: str, revision: str) -> LambdaAlias:
        if self.aliases[function, alias].revision != revision:
            raise CloudError(f"moving {alias}: something else changed it meanwhile", "PreconditionFailedException")
        self.moves.append((function, alias, version))
        self.point(function, alias, version)
        self._trip.step()
        return self.aliases[function, alias]

    def invoke(self, function: str, qualifier: str, event: Mapping[str, Any]) -> Any:
        self.invoked.append(qualifier)
        if (function, qualifier) in self.broken:
            raise CloudError(f"{function}:{qualifier} failed: Runtime.ExitError", FAILED)
        number = next(each for each in self.published[function] if each.number == qualifier)
        said = described(number.description)
        assert said is not None
        version = self._store.find(self.spoiled.get((function, qualifier), said[0]))
        handler = LambdaHandler(load([version.folder]), Settings(), QuietObserver())
        return json.loads(json.dumps(handler(json.loads(json.dumps(event)), None)))

    def provisioned(self, function: str, alias: str) -> Provisioned | None:
        return self.ready.pop(0) if len(self.ready) > 1 else self.ready[0] if self.ready else None


class FakeStacks:
    """CloudFormation: stacks that a test puts there, or that the fake CDK left in a folder, where `arrived` hears."""

    def __init__(self, folder: Path) -> None:
        self.arrived: Callable[[dict[str, dict[str, Any]]], None] = lambda templates: None
        self.there: dict[str, DeployedStack] = {}
        self.templates: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, list[Failed]] = {}
        self.physical: dict[str, list[str]] = {}
        self.deleted: list[str] = []
        self.stuck: set[str] = set()
        self.folder = folder

    def stack(self, name: str) -> DeployedStack | None:
        if (self.folder / "manifest.json").exists():
            templates = read_assembly(self.folder)
            shutil.rmtree(self.folder)
            self.templates |= templates
            self.arrived(templates)
        return self.there.get(name)

    def template(self, name: str) -> dict[str, Any] | None:
        return self.templates.get(name)

    def failures(self, name: str) -> list[Failed]:
        return self.failed.get(name, [])

    def resources(self, name: str, kind: str) -> list[str]:
        return self.physical.get(name, [])

    def delete(self, name: str) -> None:
        self.deleted.append(name)
        if name in self.stuck:
            self.there[name] = DeployedStack(name, "DELETE_FAILED")
        else:
            self.there.pop(name, None)


class FakeDeployments:
    """CodeDeploy: gives the answers that a test wrote; one that succeeded has moved the alias."""

    def __init__(self, functions: FakeFunctions, trip: Trip) -> None:
        self.answers: list[Progress] = [Progress("InProgress", 0.1), Progress("Succeeded", 1.0)]
        self.started: list[Mapping[str, Any]] = []
        self.stopped: list[str] = []
        self.other: str | None = None
        self._functions = functions
        self._trip = trip

    def start(self, application: str, group: str, content: Mapping[str, Any], description: str) -> str:
        self.started.append({"application": application, "group": group, **content})
        self._trip.step()
        return f"d-{len(self.started)}"

    def progress(self, deployment: str) -> Progress:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer.succeeded:
            properties = next(iter(self.started[-1]["Resources"][0].values()))["Properties"]
            self._functions.point(properties["Name"], properties["Alias"], properties["TargetVersion"])
        return answer

    def running(self, application: str, group: str) -> str | None:
        return self.other

    def stop(self, deployment: str) -> None:
        self.stopped.append(deployment)
        self.answers = [Progress("Stopped", 0.0)]


class FakeEndpoints:
    """SageMaker: an update takes some questions, and may end as it was before."""

    def __init__(self, trip: Trip) -> None:
        self.there: dict[str, Endpoint] = {}
        self.known: list[Configuration] = []
        self.after: list[Endpoint] = []
        self.updates: list[str] = []
        self.refuses = False
        self._trip = trip

    def endpoint(self, name: str) -> Endpoint | None:
        if self.after:
            self.there[name] = self.after.pop(0)
        return self.there.get(name)

    def configurations(self, tag: str, value: str) -> list[Configuration]:
        return [each for each in self.known if each.tags.get(tag) == value]

    def update(self, name: str, configuration: str) -> None:
        self.updates.append(configuration)
        before = self.there[name].configuration
        after = (
            Endpoint("InService", before, "the alarm rang") if self.refuses else Endpoint("InService", configuration)
        )
        self.after = [Endpoint("Updating", before), after]
        self._trip.step()


class FakeBuckets:
    """S3 and KMS at the end of a stage."""

    def __init__(self) -> None:
        self.there = {MODELS_BUCKET: Content(12, 3_000_000_000), "sampan-dev-logs": Content(1, 10)}
        self.forgotten: list[tuple[str, int]] = []

    def content(self, bucket: str) -> Content | None:
        return self.there.get(bucket)

    def delete(self, bucket: str, deleted: Callable[[int], None]) -> None:
        deleted(self.there.pop(bucket).objects)

    def forget_key(self, key: str, days: int) -> None:
        self.forgotten.append((key, days))


@dataclass
class FakeObjects:
    """Small objects with ETags."""

    trip: Trip
    content: dict[str, tuple[bytes, str]] = field(default_factory=dict)

    def listed(self, folder: str) -> list[str]:
        return sorted(key.removeprefix(folder) for key in self.content if key.startswith(folder))

    def read(self, key: str) -> tuple[bytes, str] | None:
        return self.content.get(key)

    def put(self, key: str, content: bytes, etag: str | None) -> bool:
        there = self.content.get(key)
        if (there[1] if there else None) != etag:
            return False
        self.content[key] = (content, str(int(etag or "0") + 1))
        self.trip.step()
        return True


class TrippedStore(LocalStore):
    """The stage's store; moving an alias is a step."""

    def __init__(self, root: Path, trip: Trip) -> None:
        super().__init__(root)
        self._trip = trip

    def move(self, *arguments: Any, **options: Any) -> Any:
        moved = super().move(*arguments, **options)
        self._trip.step()
        return moved


@dataclass
class World:
    """A project on disk, a stage of it in memory, and every fake by name."""

    folder: Path
    local: Store
    store: Store
    trip: Trip
    functions: FakeFunctions
    stacks: FakeStacks
    deployments: FakeDeployments
    endpoints: FakeEndpoints
    buckets: FakeBuckets
    objects: FakeObjects
    pauses: list[float] = field(default_factory=list)

    @property
    def project(self) -> Project:
        return read_project(self.folder)

    @property
    def cloud(self) -> Cloud:
        return Cloud(
            functions=self.functions,
            stacks=self.stacks,
            deployments=self.deployments,
            endpoints=self.endpoints,
            components=self.endpoints,
            buckets=self.buckets,
            region=lambda: REGION,
            account=lambda: ACCOUNT,
            objects=lambda bucket: self.objects,
            store=lambda location: self.store,
            pause=self.pauses.append,
        )

    @property
    def stage(self) -> Stage:
        return open_stage(self.project, self.cloud)

    @property
    def live(self) -> str:
        """The Lambda version that answers."""
        return self.functions.aliases["sampan-dev-linear", "live"].version

    @property
    def stored(self) -> int | None:
        alias = self.store.aliases("linear").get("live")
        return alias.version if alias else None

    def configure(self, **options: Any) -> None:
        """Write cdk.json's stage dev."""
        content = {"context": {"project": "sampan", "stage": "dev", "stages": {"dev": options}}}
        (self.folder / "cdk.json").write_text(json.dumps(content))

    def package(self, ref: str = "linear:1", placement: str = "lambda") -> None:
        """What `sampan package` would have left."""
        built = self.folder / "build/functions/linear"
        built.mkdir(parents=True, exist_ok=True)
        (built / "package.json").write_text(json.dumps({"model": ref, "manifest": DIGEST}))
        function = self.folder / "functions/linear"
        function.mkdir(parents=True, exist_ok=True)
        (function / "function.toml").write_text(f'model = "{ref}"\nplacement = "{placement}"\nmemory = 512\n')

    def synthesised(self, ref: str) -> None:
        """What the fake CDK will synthesise: a function whose version is of a model."""
        folder = self.folder / "cdk/templates"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        function = {"FunctionName": "sampan-dev-linear", "MemorySize": 512, "Timeout": 29, "Environment": ref}
        version = {"FunctionName": {"Ref": "Fn"}, "Description": describe(ref, DIGEST)}
        templates = {
            "Store": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": {}}},
            "Serve": {
                "Fn": {"Type": "AWS::Lambda::Function", "Properties": function},
                f"V{ref[-1]}": {"Type": "AWS::Lambda::Version", "Properties": version},
            },
            "Api": {"Api": {"Type": "AWS::ApiGateway::RestApi", "Properties": {}}},
        }
        artifacts = {}
        for part, resources in templates.items():
            file = f"sampan-dev-{part}.template.json"
            (folder / file).write_text(json.dumps({"Resources": resources}))
            properties = {"templateFile": file, "stackName": f"sampan-dev-{part}"}
            artifacts[f"sampan-dev-{part}"] = {"type": "aws:cloudformation:stack", "properties": properties}
        (folder / "manifest.json").write_text(json.dumps({"artifacts": artifacts}))

    def deployments_arrive(self) -> None:
        """What the fake CDK deploys comes into being here."""

        def arrived(templates: dict[str, dict[str, Any]]) -> None:
            version = next(
                each["Properties"]["Description"]
                for each in templates["sampan-dev-Serve"]["Resources"].values()
                if each["Type"] == "AWS::Lambda::Version"
            )
            self.deployed(version.split()[0])

        self.stacks.arrived = arrived

    def deployed(self, ref: str = "linear:1") -> str:
        """The stage's stacks are there, and a Lambda version of a model, which is the candidate (and live if first)."""
        names = self.project.names
        self.stacks.there |= {
            names.stack("Store"): DeployedStack(
                names.stack("Store"), "CREATE_COMPLETE", "", {BUCKET: MODELS_BUCKET, KEY: "arn:aws:kms:key/1"}
            ),
            names.stack("Serve"): DeployedStack(names.stack("Serve"), "CREATE_COMPLETE"),
            names.stack("Api"): DeployedStack(
                names.stack("Api"), "CREATE_COMPLETE", "", {URL: "https://api.example/dev/"}
            ),
        }
        name = names.function("linear")
        number = self.functions.publish(name, ref)
        self.functions.point(name, "candidate", number)
        if (name, "live") not in self.functions.aliases:
            self.functions.point(name, "live", number)
        return number


def make_world(folder: Path, trip: Trip | None = None) -> World:
    """A project with the function `linear`, three versions of its model, and an empty account."""
    trip = trip or Trip()
    local = LocalStore(folder / "model_store/models")
    for seed in range(3):
        add_model(local, models.save(models.linear(seed=seed), folder / "linear.onnx"), name="linear")
    store = TrippedStore(folder / "stage", trip)
    functions = FakeFunctions(local, trip)
    world = World(
        folder=folder,
        local=local,
        store=store,
        trip=trip,
        functions=functions,
        stacks=FakeStacks(folder / "cdk/deployed"),
        deployments=FakeDeployments(functions, trip),
        endpoints=FakeEndpoints(trip),
        buckets=FakeBuckets(),
        objects=FakeObjects(trip),
    )
    world.configure()
    world.package()
    return world
