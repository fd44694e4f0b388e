"""A project as its stage deploys it: `function.toml` files, what `sampan package` made of them, the stage's options.

    cdk.json + functions/*/function.toml + build/functions/*/package.json → Project

Typed, checked, and read from files alone: no clock, no git, no network, no credentials.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sampan.contract.errors import InvalidInputError
from sampan.contract.function import NAME, FunctionConfig
from sampan.contract.manifest import Manifest, decode_manifest
from sampan.contract.toml_lines import decode_toml
from sampan.stacks.names import Names, logical

CDK_FILE = "cdk.json"
BUILD = "build/functions"
MAX_BODY = 6_291_556  # bytes, https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
SNAPSTART_PYTHON = (3, 12)  # and newer, https://docs.aws.amazon.com/lambda/latest/dg/snapstart.html
Positive = Annotated[int, Field(gt=0)]
# what CloudWatch Logs takes, https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html
Days = Literal[1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653]


class Options(BaseModel):
    """Base of a stage's options: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FunctionOptions(Options):
    """What a stage says of one function.

    Attributes:
        memory: MB, in place of function.toml's.
        storage: MB of /tmp.
        reserved: most instances at once; None: the account's.
        provisioned: instances that are kept ready on the live alias; not with SnapStart.
    """

    memory: Annotated[int, Field(ge=128, le=10240)] | None = None
    storage: Annotated[int, Field(ge=512, le=10240)] = 512
    reserved: Positive | None = None
    provisioned: Positive | None = None

    @model_validator(mode="after")
    def _instances(self) -> "FunctionOptions":
        if self.reserved and self.provisioned and self.provisioned > self.reserved:
            raise ValueError(f"{self.provisioned} provisioned instances are more than the {self.reserved} reserved")
        return self


class Tenant(Options):
    """One who calls: an API key of its own, with a rate (requests a second), a burst, and calls a month."""

    name: Annotated[str, Field(pattern=rf"^{NAME}$", max_length=64)]
    rate: Annotated[float, Field(gt=0)] = 10
    burst: Positive = 20
    quota: Positive | None = 100_000


class Jwt(Options):
    """Issuer (https URL) and audiences of the tokens that an HTTP API accepts."""

    issuer: str
    audience: tuple[str, ...]


class Domain(Options):
    """A custom domain and the ARN of its certificate, which is in the same region."""

    name: str
    certificate: str


class ApiOptions(Options):
    """The API in front.

    Attributes:
        kind: `rest` (keys, usage plans, WAF, streaming) or `http` (cheaper; jwt, iam or none).
        auth: who may call: `key`, `iam`, `jwt` (HTTP API), `cognito` (REST; `user_pool`), `none`.
        user_pool: ARN of the Cognito user pool.
        tenants: callers with keys, for `auth = "key"`.
        rate, burst: requests a second of all callers together.
        cors: origins that browsers may call from.
        waf: a web ACL with AWS's common rules and a rate limit per address (REST).
        stream: answers are streamed (REST): up to 15 min and over 10 MB; for images whose runtime client streams,
            which Python's does not.
        max_body: bytes of a request body; Lambda's payload holds no more.
        trace: send X-Ray traces (REST).
        log_days: retention of access logs.
        log_role: make the role by which API Gateway writes logs (REST), which is one of the account in its region and
            stays when the stage goes; false where there is one.
    """

    kind: Literal["rest", "http"] = "rest"
    auth: Literal["key", "iam", "jwt", "cognito", "none"] = "key"
    jwt: Jwt | None = None
    user_pool: str | None = None
    tenants: tuple[Tenant, ...] = (Tenant(name="default"),)
    rate: Annotated[float, Field(gt=0)] = 100
    burst: Positive = 200
    cors: tuple[str, ...] = ()
    waf: bool = False
    domain: Domain | None = None
    stream: bool = False
    max_body: Annotated[int, Field(gt=0, le=MAX_BODY)] = MAX_BODY
    trace: bool = False
    log_days: Days = 30
    log_role: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> "ApiOptions":
        only = {"rest": ("key", "cognito", "iam", "none"), "http": ("jwt", "iam", "none")}[self.kind]
        if self.auth not in only:
            raise ValueError(f"a {self.kind} API has no auth '{self.auth}'; it has {', '.join(only)}")
        for option, given, auth in (("jwt", self.jwt, "jwt"), ("user_pool", self.user_pool, "cognito")):
            if (given is not None) != (self.auth == auth):
                raise ValueError(f"auth '{auth}' and '{option}' go together")
        if self.kind == "http" and (self.waf or self.stream or self.trace):
            raise ValueError("waf, stream and trace need a rest API")
        if len({logical(tenant.name) for tenant in self.tenants}) < len(self.tenants):
            raise ValueError("two tenants have one name, or names that differ by - and _ alone")
        return self


class StoreOptions(Options):
    """The stage's bucket: days until replaced objects are deleted, and until uploads that stopped are given up."""

    old_days: Positive = 90
    upload_days: Positive = 7


class RolloutOptions(Options):
    """How traffic moves to a new version.

    Attributes:
        kind: `all-at-once`: one alias flip; `canary`: CodeDeploy shifts `percent` first, the rest after `minutes`.
        max_errors: errors a minute over which the alarm stops a rollout.
        max_p95_ms: 95th percentile of the duration over which it does; None: the budget of function.toml.
    """

    kind: Literal["all-at-once", "canary"] = "all-at-once"
    percent: Annotated[int, Field(ge=1, le=99)] = 10
    minutes: Positive = 5
    max_errors: Positive = 1
    max_p95_ms: Positive | None = None


class ObserveOptions(Options):
    """Whom alarms reach, and how long the functions' logs are kept (days; a value that CloudWatch Logs takes)."""

    email: str | None = None
    log_days: Days = 30


class StageConfig(Options):
    """One stage of cdk.json's context.

    Attributes:
        default: the function that answers the paths without a model's name; None: the first.
        only: the functions of the stage; None: all of the project.
        functions: options by function.
        region: where the stage is; None: the credentials' own.
        account: whose it is; None: the credentials' own.
    """

    region: str | None = None
    account: Annotated[str, Field(pattern=r"^\d{12}$")] | None = None
    default: str | None = None
    only: tuple[str, ...] | None = None
    functions: dict[str, FunctionOptions] = {}
    api: ApiOptions = ApiOptions()
    store: StoreOptions = StoreOptions()
    rollout: RolloutOptions = RolloutOptions()
    observe: ObserveOptions = ObserveOptions()


class PackagedEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What it wrote of a heavy function's endpoint: `manifest` is the digest of the whole version's manifest.json."""

    manifest: str
    arguments: dict[str, str] = {}


class Packaged(msgspec.Struct, frozen=True, kw_only=True):
    """What `sampan package` wrote into package.json, as far as a stack needs it.

    `arguments` are the image's build arguments, `manifest` the digest of the packaged version's manifest.json,
    `settled` what the placement `auto` became, `endpoint` the other artefact of a heavy function.
    """

    model: str
    manifest: str
    arguments: dict[str, str] = {}
    image: str | None = None
    settled: dict[str, Any] = {}
    endpoint: PackagedEndpoint | None = None


@dataclass(frozen=True, slots=True)
class Deployable:
    """A function of the project on this stage.

    Attributes:
        folder: where `sampan package` puts what it makes: `context/`, `endpoint/`, `function.zip`, `layer.zip`,
            `golden.json`.
        packaged: None: not packaged yet; its stack then refuses to be deployed.
        manifest: of the packaged version.
    """

    name: str
    config: FunctionConfig
    options: FunctionOptions
    folder: Path
    packaged: Packaged | None
    manifest: Manifest | None

    @property
    def memory(self) -> int:
        return self.options.memory or self.config.memory

    @property
    def model(self) -> str:
        """The model's name."""
        ref = self.packaged.model if self.packaged else self.config.model
        return ref.replace("@", ":").split(":")[0]

    @property
    def heavy(self) -> bool:
        """Whether a SageMaker endpoint runs it."""
        return self.config.heavy

    @property
    def asynchronous(self) -> bool:
        """Whether that endpoint takes requests from S3 alone."""
        return self.config.placement == "sagemaker-async"

    @property
    def from_zero(self) -> bool:
        """Whether its model is an inference component, which comes and goes."""
        return self.heavy and self.config.endpoint.scale_to_zero and not self.asynchronous

    @property
    def sealed_endpoint(self) -> bool:
        """Whether the model in its endpoint's image is encrypted."""
        file = self.folder / "endpoint/model/opt/models" / self.model / "manifest.json"
        return file.is_file() and decode_manifest(file.read_bytes(), str(file)).sealed is not None


@dataclass(frozen=True, slots=True)
class Project:
    """All that the app needs to know."""

    folder: Path
    names: Names
    config: StageConfig
    functions: tuple[Deployable, ...]

    @property
    def default(self) -> Deployable:
        """The function that answers paths without a model's name."""
        chosen = [function for function in self.functions if function.name == self.config.default]
        return chosen[0] if chosen else self.functions[0]


def read_project(folder: Path, stage: str | None = None) -> Project:
    """Read a project for one of its stages.

    Args:
        stage: None: the one that cdk.json's context names as `stage`.

    Raises:
        InvalidInputError: a file that is missing or wrong, a stage that is not there, no functions, or two functions
            of one model; says where.
    """
    file = folder / CDK_FILE
    context = _context(file)
    stages = context.get("stages", {})
    chosen = stage or context.get("stage") or "dev"
    if chosen not in stages:
        raise InvalidInputError(f"{file} has no stage '{chosen}' in its context; it has {', '.join(stages) or 'none'}")
    config = _checked(stages[chosen], f"{file}: stage '{chosen}'")
    names = Names(str(context.get("project", "sampan")), chosen)
    functions = tuple(_deployable(folder, name, config) for name in _chosen(folder, config, file))
    _check_models(functions)
    return Project(folder, names, config, functions)


def _context(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise InvalidInputError(f"there is no {file}; run this in a project, or name one with --project-dir") from error
    except ValueError as error:
        raise InvalidInputError(f"{file} is not JSON: {error}") from error
    context: dict[str, Any] = content.get("context", {})
    return context


def _checked(options: Any, where: str) -> StageConfig:
    try:
        return StageConfig.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        words = first["msg"].removeprefix("Value error, ")
        raise InvalidInputError(f"{where}: {place}: {words}" if place else f"{where}: {words}") from error


def _chosen(folder: Path, config: StageConfig, file: Path) -> list[str]:
    there = sorted(path.parent.name for path in folder.glob("functions/*/function.toml"))
    for name in (*(config.only or ()), *config.functions, *filter(None, (config.default,))):
        if name not in there:
            raise InvalidInputError(f"{file} names the function '{name}'; there are {', '.join(there) or 'none'}")
    chosen = [name for name in there if config.only is None or name in config.only]
    if not chosen:
        raise InvalidInputError(f"{folder} has no functions to deploy; make one with 'sampan new NAME --model REF'")
    return chosen


def _deployable(folder: Path, name: str, config: StageConfig) -> Deployable:
    file = folder / "functions" / name / "function.toml"
    try:
        function = msgspec.convert(decode_toml(file.read_bytes(), str(file)), FunctionConfig)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"{file}: {error}") from error
    options = config.functions.get(name, FunctionOptions())
    built = folder / BUILD / name
    packaged = _packaged(built / "package.json")
    if function.placement == "auto" and packaged:
        function = msgspec.convert({**msgspec.to_builtins(function), **packaged.settled}, FunctionConfig)
    _check_snapstart(function, options, file)
    manifest = _manifest(built, packaged) if packaged else None
    return Deployable(name, function, options, built, packaged, manifest)


def _check_snapstart(function: FunctionConfig, options: FunctionOptions, file: Path) -> None:
    """https://docs.aws.amazon.com/lambda/latest/dg/snapstart.html: what snapshots do not go with."""
    if not function.snapstart:
        return
    if tuple(map(int, function.python.split("."))) < SNAPSTART_PYTHON:
        raise InvalidInputError(f"{file}: snapstart needs Python 3.12 or newer, not {function.python}")
    if options.provisioned or options.storage > 512:
        raise InvalidInputError(f"{file}: snapstart goes neither with provisioned instances nor over 512 MB of storage")


def _packaged(file: Path) -> Packaged | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Packaged)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise InvalidInputError(f"{file} is not what `sampan package` writes: {error}; run it again") from error


def _manifest(built: Path, packaged: Packaged) -> Manifest | None:
    name = packaged.model.split(":")[0]
    file = built / "context" / "model/var/task/models" / name / "manifest.json"
    return decode_manifest(file.read_bytes(), str(file)) if file.is_file() else None


def _check_models(functions: tuple[Deployable, ...]) -> None:
    seen: dict[str, str] = {}
    named: dict[str, str] = {}
    for function in functions:
        alike = named.setdefault(logical(function.name), function.name)
        if alike != function.name:
            raise InvalidInputError(f"the functions '{alike}' and '{function.name}' have one name on AWS; rename one")
        other = seen.setdefault(function.model, function.name)
        if other != function.name:
            raise InvalidInputError(
                f"the functions '{other}' and '{function.name}' both serve the model '{function.model}'; "
                "a stage takes one function a model: name the others' in `only` of another stage"
            )
