"""SageMaker endpoints of the models that are too heavy for Lambda.

    image → model → configuration → endpoint → scaling      scale_to_zero: endpoint → inference component → scaling

As with Lambda's aliases, a deployment brings a configuration and traffic stays: the stack's parameter pins the one that
is live, and `sampan promote` moves the endpoint to the new one under its deployment policy. Configurations and models
that are replaced stay, so that a rollback finds them.

Sources: https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails.html, async-inference.html,
endpoint-auto-scaling-zero-instances.html and inference-gpu-drivers.html
"""

from typing import Any

from aws_cdk import (
    Annotations,
    CfnCondition,
    CfnDeletionPolicy,
    CfnOutput,
    CfnParameter,
    CfnResource,
    CfnTag,
    Fn,
    Stack,
)
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_sns as sns
from aws_cdk.aws_ecr_assets import DockerImageAsset
from constructs import Construct

from sampan.contract.errors import InvalidInputError
from sampan.stacks.artefact import PLATFORMS, endpoint_folder, packaged_endpoint, refuse_deployment
from sampan.stacks.config import Deployable, Project
from sampan.stacks.endpoint_role import EndpointRole
from sampan.stacks.guardrails import component_policy, endpoint_policy, has_local_storage
from sampan.stacks.logs import Logs
from sampan.stacks.nag import accept
from sampan.stacks.names import (
    ASYNC,
    BUCKET,
    ENDPOINT_TAG,
    KEY,
    MODEL_TAG,
    candidate_output,
    describe,
    live_parameter,
    logical,
)
from sampan.stacks.scaling import (
    NAMESPACE,
    VARIANT,
    instances,
    scale_component,
    scale_queue,
    scale_variant,
)
from sampan.stacks.stopping import stopping_alarm

EMPTY_NAME = ("CloudFormation-Validate::F3031", "CloudFormation-Validate::F3033")  # pattern and length
# NVIDIA's driver 580, which CUDA 13 asks for; instances come with older ones, and newer drivers run older CUDA.
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ProductionVariant.html, InferenceAmiVersion
GPU_AMI = "al2023-ami-sagemaker-inference-gpu-4-1"
OLD_GPUS = ("ml.p2.", "ml.p3.")  # older than Turing, the first that CUDA 13 compiles for
# bytes and seconds, https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference.html
ASYNC_PAYLOAD, ASYNC_TIMEOUT = 10**9, 3600
EMPTY_IS_NEVER_TAKEN = "the parameter's default is empty, and then the condition takes the configuration of the stack"


class GpuStack(Stack):
    """An endpoint for each function that SageMaker runs."""

    def __init__(self, scope: Construct, project: Project, **options: Any) -> None:
        super().__init__(scope, project.names.stack("Gpu"), description="Endpoints of heavy models", **options)
        names = project.names
        bucket = s3.Bucket.from_bucket_name(self, "Store", Fn.import_value(names.exported(BUCKET)))
        key = kms.Key.from_key_arn(self, "StoreKey", Fn.import_value(names.exported(KEY)))
        for deployable in project.functions:
            if deployable.heavy:
                ModelEndpoint(self, project, deployable, bucket, key)


class ModelEndpoint(Construct):
    """One model on SageMaker: real time, asynchronous, or real time from zero instances."""

    def __init__(
        self, scope: GpuStack, project: Project, deployable: Deployable, bucket: s3.IBucket, key: kms.IKey
    ) -> None:
        super().__init__(scope, logical(deployable.name))
        self._project, self._deployable, self._bucket, self._key = project, deployable, bucket, key
        self._endpoint = deployable.config.endpoint
        self._name = project.names.endpoint(deployable.name)
        self._asynchronous, self._from_zero = deployable.asynchronous, deployable.from_zero
        self._count = instances(self._endpoint, self._asynchronous)
        self._check()
        if deployable.packaged is None:
            refuse_deployment(self, deployable)
        self._packaged = packaged_endpoint(deployable)
        if self._asynchronous:
            Annotations.of(self).add_warning_v2("sampan:asynchronous", _asked_directly(deployable, self._name))
        self._role = self._execution_role()
        model, alarms = self._model(), self._alarms()
        if self._from_zero:
            self._serve_from_zero(model, alarms)
        else:
            self._serve(model, alarms)

    def _check(self) -> None:
        least, most, name = self._count.least, self._count.most, self._deployable.name
        if least > most:
            raise InvalidInputError(f"functions/{name}/function.toml: endpoint.min {least} is more than max {most}")
        if not least and not self._asynchronous and not self._from_zero:
            raise InvalidInputError(
                f"functions/{name}/function.toml: endpoint.min is 0; set scale_to_zero = true, or min = 1"
            )
        if self._endpoint.instance.startswith(OLD_GPUS):
            raise InvalidInputError(
                f"functions/{name}/function.toml: the GPUs of {self._endpoint.instance} are older than CUDA 13 takes; "
                "set endpoint.instance to ml.g4dn.xlarge, or another of the families g4dn, g5, g6, p4 and p5"
            )
        if self._deployable.sealed_endpoint:
            raise InvalidInputError(
                f"the model of {name} is sealed, and its endpoint, which has no network, reaches no key; run: "
                f"sampan package {name}, without --key"
            )

    def _execution_role(self) -> EndpointRole:
        kind = "InferenceComponents" if self._from_zero else "Endpoints"
        group = f"/aws/sagemaker/{kind}/{self._name}"
        log = Logs(self, "Log", name=group, days=self._project.config.observe.log_days)
        role = EndpointRole(self, self._name, log)
        role.read_model(self._bucket, self._key, self._deployable.model)
        return role

    def _model(self) -> sagemaker.CfnModel:
        image = DockerImageAsset(
            self,
            "Image",
            directory=str(endpoint_folder(self._deployable)),
            build_args=self._packaged.arguments if self._packaged else None,
            platform=PLATFORMS[self._deployable.config.architecture],
        )
        self._role.pull(image.repository)
        model = sagemaker.CfnModel(
            self,
            "Model",
            execution_role_arn=self._role.role_arn,
            enable_network_isolation=True,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                image=image.image_uri, environment=self._environment()
            ),
            tags=self._tags(),
        )
        _keep(model)
        return model

    def _environment(self) -> dict[str, str]:
        config, packaged = self._deployable.config, self._packaged
        if self._endpoint.engine == "triton":
            return {"SAGEMAKER_TRITON_DEFAULT_MODEL_NAME": self._deployable.model, **config.environment}
        digest = {"SAMPAN_MANIFEST_DIGEST": packaged.manifest} if packaged else {}
        limits = {"SAMPAN_MAX_PAYLOAD": str(ASYNC_PAYLOAD), "SAMPAN_TIMEOUT": str(ASYNC_TIMEOUT)}
        own = limits if self._asynchronous else {}
        return {"POWERTOOLS_SERVICE_NAME": self._name, **digest, **own, **config.endpoint_variables()}

    def _serve(self, model: sagemaker.CfnModel, alarms: list[cloudwatch.CfnAlarm]) -> None:
        """An endpoint whose configuration has the model."""
        variant = self._variant(
            model_name=model.attr_model_name,
            container_startup_health_check_timeout_in_seconds=self._endpoint.startup,
        )
        config = self._configuration(
            variant, async_inference_config=self._async_config() if self._asynchronous else None
        )
        endpoint = sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=self._name,
            endpoint_config_name=self._live(config.attr_endpoint_config_name),
            deployment_config=endpoint_policy(
                self._project.config.rollout, self._endpoint, self._asynchronous, [alarm.ref for alarm in alarms]
            ),
            retain_all_variant_properties=None if self._asynchronous else True,  # how many there are is scaling's
        )
        for rule in EMPTY_NAME:
            accept(endpoint, rule, EMPTY_IS_NEVER_TAKEN)
        scale = scale_queue if self._asynchronous else scale_variant
        self._order(endpoint, scale(self, self._name, self._endpoint))

    def _serve_from_zero(self, model: sagemaker.CfnModel, alarms: list[cloudwatch.CfnAlarm]) -> None:
        """An endpoint of empty instances, and the model as a component that comes and goes on them."""
        variant = self._variant(
            managed_instance_scaling=sagemaker.CfnEndpointConfig.ManagedInstanceScalingProperty(
                status="ENABLED", min_instance_count=self._count.least, max_instance_count=self._count.most
            ),
        )
        config = self._configuration(variant, execution_role_arn=self._role.role_arn, enable_network_isolation=True)
        endpoint = sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=self._name,
            endpoint_config_name=config.attr_endpoint_config_name,
        )
        kind = sagemaker.CfnInferenceComponent
        component = kind(
            self,
            "Component",
            inference_component_name=self._name,
            endpoint_name=self._name,
            variant_name=VARIANT,
            specification=kind.InferenceComponentSpecificationProperty(
                model_name=self._live(model.attr_model_name),
                compute_resource_requirements=kind.InferenceComponentComputeResourceRequirementsProperty(
                    min_memory_required_in_mb=self._endpoint.memory,
                    number_of_accelerator_devices_required=self._endpoint.accelerators or None,
                ),
                startup_parameters=kind.InferenceComponentStartupParametersProperty(
                    container_startup_health_check_timeout_in_seconds=self._endpoint.startup
                ),
            ),
            runtime_config=kind.InferenceComponentRuntimeConfigProperty(copy_count=1),
            deployment_config=component_policy(self._project.config.rollout, [alarm.ref for alarm in alarms]),
        )
        component.add_resource_dependency(endpoint)
        accept(component, EMPTY_NAME[0], EMPTY_IS_NEVER_TAKEN)
        self._order(component, scale_component(self, self._name, self._endpoint))

    def _configuration(
        self, variant: sagemaker.CfnEndpointConfig.ProductionVariantProperty, **more: Any
    ) -> sagemaker.CfnEndpointConfig:
        config = sagemaker.CfnEndpointConfig(
            self,
            "Configuration",
            production_variants=[variant],
            kms_key_id=self._volume_key(),
            tags=self._tags(),
            **more,
        )
        _keep(config)
        return config

    def _variant(self, **more: Any) -> sagemaker.CfnEndpointConfig.ProductionVariantProperty:
        kind = sagemaker.CfnEndpointConfig
        routing = kind.RoutingConfigProperty(routing_strategy="LEAST_OUTSTANDING_REQUESTS")
        return kind.ProductionVariantProperty(
            variant_name=VARIANT,
            instance_type=self._endpoint.instance,
            initial_instance_count=max(1, self._count.least),
            initial_variant_weight=None if self._from_zero else 1,
            routing_config=None if self._asynchronous else routing,
            inference_ami_version=GPU_AMI if self._endpoint.gpu else None,
            **more,
        )

    def _async_config(self) -> sagemaker.CfnEndpointConfig.AsyncInferenceConfigProperty:
        """Requests come from `in/`, answers go to `out/` and `failed/` of the endpoint's own prefix."""
        prefix = f"{ASYNC}/{self._deployable.name}"
        place = f"s3://{self._bucket.bucket_name}/{prefix}"
        topics = [self._topic("done"), self._topic("failed")]
        self._role.exchange(self._bucket, self._key, prefix, topics)
        kind = sagemaker.CfnEndpointConfig
        return kind.AsyncInferenceConfigProperty(
            client_config=kind.AsyncInferenceClientConfigProperty(
                max_concurrent_invocations_per_instance=self._endpoint.max_concurrency
            ),
            output_config=kind.AsyncInferenceOutputConfigProperty(
                s3_output_path=f"{place}/out/",
                s3_failure_path=f"{place}/failed/",
                kms_key_id=self._key.key_arn,
                notification_config=kind.AsyncInferenceNotificationConfigProperty(
                    success_topic=topics[0].topic_arn, error_topic=topics[1].topic_arn
                ),
            ),
        )

    def _topic(self, what: str) -> sns.Topic:
        return sns.Topic(self, logical(what), topic_name=f"{self._name}-{what}", master_key=self._key, enforce_ssl=True)

    def _volume_key(self) -> str | None:
        """The stage's key for the instances' volumes; local disks are encrypted by their hardware, and take none."""
        if has_local_storage(self._endpoint.instance):
            return None
        self._role.use_volumes(self._key)
        return self._key.key_arn  # type: ignore[no-any-return]

    def _live(self, candidate: str) -> str:
        """What the stack's parameter pins, else the candidate, which is also an output."""
        stack, function = Stack.of(self), self._deployable.name
        parameter = live_parameter(function)
        pinned = CfnParameter(
            stack,
            parameter,
            default="",
            allowed_pattern=r"^([a-zA-Z0-9](-*[a-zA-Z0-9]){0,62})?$",
            description=f"What of {function} stays live; empty: what is deployed",
        )
        follows = CfnCondition(stack, f"{parameter}Follows", expression=Fn.condition_equals(pinned, ""))
        CfnOutput(stack, candidate_output(function), value=candidate)
        live: str = Fn.condition_if(follows.logical_id, candidate, pinned.value_as_string).to_string()
        return live

    def _alarms(self) -> list[cloudwatch.CfnAlarm]:
        """What takes a deployment back: errors and, where there is a limit, slow answers."""
        rollout = self._project.config.rollout
        limit = rollout.max_p95_ms or self._deployable.config.budgets.p95_ms
        alarms = [self._alarm("errors", "Invocation5XXErrors", rollout.max_errors, statistic="Sum")]
        if limit:
            alarms.append(self._alarm("latency", "ModelLatency", limit * 1000, extended_statistic="p95"))  # in µs
        return alarms

    def _alarm(self, what: str, metric: str, threshold: float, **statistic: str) -> cloudwatch.CfnAlarm:
        whole = {"EndpointName": self._name, "VariantName": VARIANT}
        dimensions = {"InferenceComponentName": self._name} if self._from_zero else whole
        names, name = self._project.names, self._deployable.name
        return stopping_alarm(self, names, name, what, (NAMESPACE, metric), dimensions, threshold, **statistic)

    def _tags(self) -> list[CfnTag]:
        deployed, packaged = self._deployable.packaged, self._packaged
        said = {MODEL_TAG: describe(deployed.model, packaged.manifest)} if deployed and packaged else {}
        return [CfnTag(key=key, value=value) for key, value in {ENDPOINT_TAG: self._name, **said}.items()]

    def _order(self, served: CfnResource, target: CfnResource | None) -> None:
        """The log group stands before SageMaker would make one of its own; what scales is there before its scaling."""
        served.node.add_dependency(self.node.find_child("Log"))
        if target is not None:
            target.add_resource_dependency(served)


def _asked_directly(deployable: Deployable, endpoint: str) -> str:
    return (
        f"the API does not serve {deployable.name}: an asynchronous endpoint answers into S3, so put requests under "
        f"{ASYNC}/{deployable.name}/in/ of the store's bucket and ask {endpoint} with InvokeEndpointAsync"
    )


def _keep(resource: CfnResource) -> None:
    """A resource stays where another takes its place, and goes with its stack."""
    resource.cfn_options.update_replace_policy = CfnDeletionPolicy.RETAIN
    resource.cfn_options.deletion_policy = CfnDeletionPolicy.DELETE
