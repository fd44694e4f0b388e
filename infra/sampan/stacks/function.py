"""One function: artefact, log group, role, versions and aliases.

    Deployable → image | zip and layer → Lambda function → version → candidate · live

Traffic moves outside of CloudFormation: a deployment brings the candidate and leaves `live` where it is.
"""

from aws_cdk import (
    CfnCondition,
    CfnParameter,
    Duration,
    Fn,
    RemovalPolicy,
    Size,
    Stack,
)
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from sampan.stacks.artefact import PLATFORMS, UNBUILT, image_folder, made, packaged_endpoint, refuse_deployment
from sampan.stacks.config import MAX_BODY, Deployable, Project
from sampan.stacks.logs import Logs
from sampan.stacks.nag import RUNTIME_OF_THE_LAYER, accept
from sampan.stacks.names import CANDIDATE, LIVE, describe, live_parameter, logical
from sampan.stacks.permissions import function_role

HANDLER = "sampan.serving.function.handler"
_ARCHITECTURES = {"x86_64": lambda_.Architecture.X86_64, "arm64": lambda_.Architecture.ARM_64}


class ModelFunction(Construct):
    """A Lambda function that serves one model.

    `candidate` is the version that was deployed last. `live` is the one that the stack's parameter names; while that is
    empty, the deployed one too.
    """

    def __init__(self, scope: Construct, project: Project, deployable: Deployable) -> None:
        super().__init__(scope, logical(deployable.name))
        self._project, self._deployable = project, deployable
        if deployable.packaged is None:
            refuse_deployment(self, deployable)
        if deployable.heavy:
            packaged_endpoint(deployable)  # a front of another placement has a model of its own
        self.function = self._function()
        if deployable.config.placement == "lambda-zip":
            accept(self.function, "AwsSolutions-L1", RUNTIME_OF_THE_LAYER)
        self._aliases(self._version())

    def _function(self) -> lambda_.Function:
        deployable, names = self._deployable, self._project.names
        config, options = deployable.config, deployable.options
        log = Logs(self, "Log", name=names.log_group(deployable.name), days=self._project.config.observe.log_days)
        runtime, handler, code, layers = self._artefact()
        return lambda_.Function(
            self,
            "Function",
            function_name=names.function(deployable.name),
            description=config.description or f"The model {deployable.model}",
            runtime=runtime,
            handler=handler,
            code=code,
            layers=layers,
            architecture=_ARCHITECTURES[config.architecture],
            memory_size=deployable.memory,
            timeout=Duration.seconds(config.timeout),
            ephemeral_storage_size=Size.mebibytes(options.storage),
            environment=self._environment(),
            role=function_role(self, self._project, deployable),
            log_group=log,
            tracing=lambda_.Tracing.ACTIVE if config.trace else lambda_.Tracing.DISABLED,
            reserved_concurrent_executions=options.reserved,
            snap_start=lambda_.SnapStartConf.ON_PUBLISHED_VERSIONS if config.snapstart else None,
            current_version_options=lambda_.VersionOptions(
                removal_policy=RemovalPolicy.RETAIN, description=self._description()
            ),
        )

    def _artefact(self) -> tuple[lambda_.Runtime, str, lambda_.Code, list[lambda_.ILayerVersion] | None]:
        config, packaged = self._deployable.config, self._deployable.packaged
        if config.placement == "lambda-zip":
            runtime = lambda_.Runtime(f"python{config.python}", lambda_.RuntimeFamily.PYTHON)
            if packaged is None:
                return runtime, HANDLER, lambda_.Code.from_asset(str(UNBUILT)), None
            code = lambda_.Code.from_asset(str(made(self._deployable, "function.zip")))
            return runtime, HANDLER, code, [self._layer(runtime)]
        image = lambda_.Code.from_asset_image(
            str(image_folder(self._deployable)),
            build_args=packaged.arguments if packaged else None,
            platform=PLATFORMS[config.architecture],
        )
        return lambda_.Runtime.FROM_IMAGE, lambda_.Handler.FROM_IMAGE, image, None

    def _layer(self, runtime: lambda_.Runtime) -> lambda_.ILayerVersion:
        return lambda_.LayerVersion(
            self,
            "Layer",
            code=lambda_.Code.from_asset(str(made(self._deployable, "layer.zip"))),
            compatible_runtimes=[runtime],
            compatible_architectures=[_ARCHITECTURES[self._deployable.config.architecture]],
            description=f"Dependencies of {self._deployable.name}",
        )

    def _environment(self) -> dict[str, str]:
        deployable, api = self._deployable, self._project.config.api
        variables = {"POWERTOOLS_SERVICE_NAME": self._project.names.function(deployable.name)}
        if deployable.packaged:
            variables["SAMPAN_MANIFEST_DIGEST"] = deployable.packaged.manifest
        if deployable.heavy:
            variables["SAMPAN_ENDPOINT"] = self._project.names.endpoint(deployable.name)
        if deployable.from_zero:
            variables["SAMPAN_COMPONENT"] = self._project.names.endpoint(deployable.name)
        if api.max_body != MAX_BODY:
            variables["SAMPAN_MAX_PAYLOAD"] = str(api.max_body)
        if api.kind == "rest" and api.cors:  # an HTTP API says it itself
            variables["SAMPAN_ORIGINS"] = ",".join(api.cors)
        return variables | deployable.config.variables()

    def _description(self) -> str | None:
        packaged = self._deployable.packaged
        return describe(packaged.model, packaged.manifest) if packaged else None

    def _version(self) -> str:
        version: str = self.function.current_version.version
        return version

    def _aliases(self, version: str) -> None:
        name, parameter = self._deployable.name, live_parameter(self._deployable.name)
        pinned = CfnParameter(
            Stack.of(self),
            parameter,
            default="",
            allowed_pattern=r"^([1-9][0-9]*)?$",
            description=f"Version of {name} that stays live; empty: the one that is deployed",
        )
        follows = CfnCondition(Stack.of(self), f"{parameter}Follows", expression=Fn.condition_equals(pinned, ""))
        live = Fn.condition_if(follows.logical_id, version, pinned.value_as_string).to_string()
        self._alias(CANDIDATE, version)
        alias = self._alias(LIVE, live)
        if self._deployable.options.provisioned:
            alias.provisioned_concurrency_config = lambda_.CfnAlias.ProvisionedConcurrencyConfigurationProperty(
                provisioned_concurrent_executions=self._deployable.options.provisioned
            )

    def _alias(self, name: str, version: str) -> lambda_.CfnAlias:
        function = self.function.function_name
        return lambda_.CfnAlias(self, logical(name), name=name, function_name=function, function_version=version)
