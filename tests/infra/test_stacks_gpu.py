"""The Gpu stack: endpoints, how they take a new model, how they scale, and what they may do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aws_cdk
import msgspec
import pytest
from aws_cdk.assertions import Annotations, Match, Template
from test_stacks_rollout import actions, resources

from sampan.contract.errors import InvalidInputError
from sampan.contract.function import FunctionConfig
from sampan.stacks.config import read_project
from sampan.stacks.gpu import GpuStack
from sampan.stacks.guardrails import has_local_storage
from sampan.stacks.nag import check

pytestmark = pytest.mark.infra

DIGEST = "sha256:" + "ab" * 32
FRONT = "sha256:" + "cd" * 32
RECORD = {
    "model": "bert:3",
    "manifest": FRONT,
    "arguments": {"BASE_IMAGE": "python:3.12"},
    "endpoint": {"manifest": DIGEST, "arguments": {"BASE_IMAGE": "debian:12"}, "engine": "sampan"},
}
REAL_TIME = 'placement = "sagemaker"\n[endpoint]\ninstance = "ml.g5.xlarge"\nmin = 2\nmax = 4\n[budgets]\np95_ms = 80\n'
QUEUE = 'placement = "sagemaker-async"\n[endpoint]\ninstance = "ml.c6i.xlarge"\nmax_concurrency = 7\n'
BATCHED = """placement = "sagemaker"
golden_check = 3
[environment]
SPEED = "high"
[endpoint]
batch = 32
batch_delay_ms = 5
sessions = 2
"""
FROM_ZERO = 'placement = "sagemaker"\n[endpoint]\nscale_to_zero = true\nmemory = 9000\n'
CANARY = {"rollout": {"kind": "canary", "percent": 20, "minutes": 10}}


def project(folder: Path, toml: str, stage: dict[str, Any], packaged: bool | dict[str, Any] = True) -> Path:
    (folder / "cdk.json").write_text(json.dumps({"context": {"project": "sampan", "stages": {"dev": stage}}}))
    (folder / "functions" / "bert").mkdir(parents=True)
    (folder / "functions" / "bert" / "function.toml").write_text(f'model = "bert"\n{toml}')
    if packaged:
        built = folder / "build" / "functions" / "bert"
        for context in ("context", "endpoint"):
            (built / context).mkdir(parents=True)
            (built / context / "Dockerfile").write_text(f"FROM {context}\n")
        (built / "package.json").write_text(json.dumps(RECORD if packaged is True else packaged))
    return folder


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Template]:
    """The template of a stage with one function; `strict`: held against cdk-nag and CloudFormation's schemas."""
    made: dict[str, Template] = {}

    def template(
        toml: str,
        stage: dict[str, Any] | None = None,
        packaged: bool | dict[str, Any] = True,
        strict: bool = False,
    ) -> Template:
        key = repr((toml, stage, packaged, strict))
        if key not in made:
            folder = tmp_path_factory.mktemp("project")
            out = str(folder / "cdk.out")
            app = aws_cdk.App(analytics_reporting=False, builtin_cloud_formation_validation=False, outdir=out)
            stack = GpuStack(app, read_project(project(folder, toml, stage or {}, packaged)))
            if strict:
                check(app)
            made[key] = Template.from_stack(stack)
            made[key].folder, made[key].stack = Path(out), stack
        return made[key]

    return template


def only(template: Template, kind: str) -> dict[str, Any]:
    (found,) = template.find_resources(kind).values()
    return found


def statements(template: Template) -> dict[frozenset[str], dict[str, Any]]:
    """Statements of the endpoint's role by their actions; those that differ in their condition have it in their key."""
    (policy,) = only(template, "AWS::IAM::Role")["Properties"]["Policies"]
    found: dict[frozenset[str], dict[str, Any]] = {}
    for statement in policy["PolicyDocument"]["Statement"]:
        via = json.dumps(statement.get("Condition", {}).get("StringEquals", {}).get("kms:ViaService", ""))
        key = frozenset((*actions(statement), *(name for name in ("s3", "sns") if f'"{name}.' in via)))
        before = found.get(key, {"Resource": []})["Resource"]
        given = statement["Resource"]
        found[key] = {**statement, "Resource": [*before, *(given if isinstance(given, list) else [given])]}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("toml", [REAL_TIME, QUEUE, FROM_ZERO])
def test_rules_of_cdk_nag_and_schemas_hold(build, toml):
    only(build(toml, CANARY, strict=True), "AWS::SageMaker::Endpoint")


class TestRealTime:
    def test_the_model_is_isolated_and_says_what_it_is(self, build):
        model = only(build(REAL_TIME), "AWS::SageMaker::Model")["Properties"]
        assert model["EnableNetworkIsolation"] is True
        assert model["PrimaryContainer"]["Environment"]["SAMPAN_MANIFEST_DIGEST"] == DIGEST
        assert {"Key": "sampan:model", "Value": f"bert:3 {DIGEST}"} in model["Tags"]

    def test_the_image_is_the_endpoints_own(self, build):
        """The front's context and arguments make the Lambda function's image."""
        template = build(REAL_TIME)
        (folder,) = template.folder.glob("asset.*")
        assert (folder / "Dockerfile").read_text() == "FROM endpoint\n"
        (image,) = json.loads(next(template.folder.glob("*.assets.json")).read_bytes())["dockerImages"].values()
        assert image["source"]["dockerBuildArgs"] == {"BASE_IMAGE": "debian:12"}
        assert image["source"]["platform"] == "linux/amd64"

    def test_the_container_is_told_what_its_function_says(self, build):
        environment = only(build(BATCHED), "AWS::SageMaker::Model")["Properties"]["PrimaryContainer"]["Environment"]
        assert environment == {
            "POWERTOOLS_SERVICE_NAME": "sampan-dev-bert",
            "SAMPAN_MANIFEST_DIGEST": DIGEST,
            "SAMPAN_BATCH": "32",
            "SAMPAN_BATCH_DELAY_MS": "5",
            "SAMPAN_SESSIONS": "2",
            "SAMPAN_PROVIDER": "cuda",
            "SAMPAN_GOLDEN_CHECK": "3",
            "SPEED": "high",
        }

    def test_triton_is_told_in_its_own_words(self, build):
        template = build('placement = "sagemaker"\n[environment]\nA = "b"\n[endpoint]\nengine = "triton"\n')
        environment = only(template, "AWS::SageMaker::Model")["Properties"]["PrimaryContainer"]["Environment"]
        assert environment == {"SAGEMAKER_TRITON_DEFAULT_MODEL_NAME": "bert", "A": "b"}

    @pytest.mark.parametrize(
        ("toml", "ami"),
        [
            (REAL_TIME, "al2023-ami-sagemaker-inference-gpu-4-1"),
            (FROM_ZERO, "al2023-ami-sagemaker-inference-gpu-4-1"),
            (QUEUE, None),
        ],
    )
    def test_gpus_have_a_driver_for_the_images_cuda(self, build, toml, ami):
        config = only(build(toml), "AWS::SageMaker::EndpointConfig")["Properties"]
        assert config["ProductionVariants"][0].get("InferenceAmiVersion") == ami

    def test_what_scaling_counted_stays_when_the_configuration_changes(self, build):
        endpoint = only(build(REAL_TIME), "AWS::SageMaker::Endpoint")["Properties"]
        assert endpoint["RetainAllVariantProperties"] is True

    def test_the_configuration_has_its_instances(self, build):
        config = only(build(REAL_TIME), "AWS::SageMaker::EndpointConfig")["Properties"]
        (variant,) = config["ProductionVariants"]
        assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.g5.xlarge", 2)
        assert variant["ContainerStartupHealthCheckTimeoutInSeconds"] == 600
        assert "KmsKeyId" not in config
        assert {"Key": "sampan:model", "Value": f"bert:3 {DIGEST}"} in config["Tags"]
        assert {"Key": "sampan:endpoint", "Value": "sampan-dev-bert"} in config["Tags"]

    @pytest.mark.parametrize("kind", ["AWS::SageMaker::EndpointConfig", "AWS::SageMaker::Model"])
    def test_what_is_replaced_stays_for_a_rollback(self, build, kind):
        found = only(build(REAL_TIME), kind)
        assert (found["UpdateReplacePolicy"], found["DeletionPolicy"]) == ("Retain", "Delete")

    def test_a_deployment_moves_no_traffic(self, build):
        """The endpoint has the configuration that the parameter pins; without one the new one, which is an output."""
        found = build(REAL_TIME).to_json()
        (config,) = build(REAL_TIME).find_resources("AWS::SageMaker::EndpointConfig")
        candidate = {"Fn::GetAtt": [config, "EndpointConfigName"]}
        endpoint = only(build(REAL_TIME), "AWS::SageMaker::Endpoint")["Properties"]
        assert endpoint["EndpointName"] == "sampan-dev-bert"
        assert endpoint["EndpointConfigName"] == {"Fn::If": ["LiveBertFollows", candidate, {"Ref": "LiveBert"}]}
        assert found["Conditions"]["LiveBertFollows"] == {"Fn::Equals": [{"Ref": "LiveBert"}, ""]}
        assert found["Parameters"]["LiveBert"]["Default"] == ""
        assert found["Outputs"]["CandidateBert"]["Value"] == candidate

    def test_a_canary_goes_first_and_alarms_take_it_back(self, build):
        template = build(REAL_TIME, CANARY)
        policy = only(template, "AWS::SageMaker::Endpoint")["Properties"]["DeploymentConfig"]
        blue_green = policy["BlueGreenUpdatePolicy"]
        assert blue_green["TrafficRoutingConfiguration"] == {
            "Type": "CANARY",
            "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 20},
            "WaitIntervalInSeconds": 600,
        }
        assert blue_green["TerminationWaitInSeconds"] == 600
        assert blue_green["MaximumExecutionTimeoutInSeconds"] > 1200 + 600
        watched = {alarm["AlarmName"]["Ref"] for alarm in policy["AutoRollbackConfiguration"]["Alarms"]}
        assert watched == set(template.find_resources("AWS::CloudWatch::Alarm"))

    @pytest.mark.parametrize(("toml", "stage"), [(REAL_TIME, {}), (REAL_TIME.replace("min = 2", "min = 1"), CANARY)])
    def test_all_at_once_where_asked_or_where_half_a_fleet_is_none(self, build, toml, stage):
        policy = only(build(toml, stage), "AWS::SageMaker::Endpoint")["Properties"]["DeploymentConfig"]
        routing = policy["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
        assert (routing["Type"], "CanarySize" in routing) == ("ALL_AT_ONCE", False)

    @pytest.mark.parametrize(
        ("metric", "more"),
        [
            ("Invocation5XXErrors", {"Statistic": "Sum", "Threshold": 1}),
            ("ModelLatency", {"ExtendedStatistic": "p95", "Threshold": 80_000}),
        ],
    )
    def test_errors_and_slow_answers_are_alarms(self, build, metric, more):
        dimensions = [
            {"Name": "EndpointName", "Value": "sampan-dev-bert"},
            {"Name": "VariantName", "Value": "AllTraffic"},
        ]
        build(REAL_TIME).has_resource_properties(
            "AWS::CloudWatch::Alarm", {"MetricName": metric, "Dimensions": dimensions, **more}
        )

    def test_instances_follow_invocations(self, build):
        template = build(REAL_TIME)
        target = only(template, "AWS::ApplicationAutoScaling::ScalableTarget")
        assert target["Properties"]["ResourceId"] == "endpoint/sampan-dev-bert/variant/AllTraffic"
        assert (target["Properties"]["MinCapacity"], target["Properties"]["MaxCapacity"]) == (2, 4)
        assert "RoleARN" not in target["Properties"]
        assert set(template.find_resources("AWS::SageMaker::Endpoint")) <= set(target["DependsOn"])
        policy = only(template, "AWS::ApplicationAutoScaling::ScalingPolicy")["Properties"]
        tracking = policy["TargetTrackingScalingPolicyConfiguration"]
        metric = tracking["PredefinedMetricSpecification"]["PredefinedMetricType"]
        assert (metric, tracking["TargetValue"]) == ("SageMakerVariantInvocationsPerInstance", 600)

    def test_a_fixed_number_does_not_scale(self, build):
        template = build(REAL_TIME.replace("max = 4", "max = 2"))
        assert template.find_resources("AWS::ApplicationAutoScaling::ScalableTarget") == {}

    def test_the_role_reads_its_model_and_pulls_its_image(self, build):
        found = statements(build(REAL_TIME))
        assert found.keys() == {
            frozenset(("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")),
            frozenset(("ecr:GetAuthorizationToken",)),
            frozenset(("logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents")),
            frozenset(("cloudwatch:PutMetricData",)),
            frozenset(("s3:GetObject",)),
            frozenset(("s3:ListBucket",)),
            frozenset(("kms:Decrypt", "s3")),
        }
        (objects,) = resources(found[frozenset(("s3:GetObject",))])
        assert objects.endswith(":s3:::sampan-dev-Store-Bucket/models/bert/*")
        listing = found[frozenset(("s3:ListBucket",))]["Condition"]
        assert listing == {"StringLike": {"s3:prefix": ["models/bert/*"]}}
        assert resources(found[frozenset(("kms:Decrypt", "s3"))]) == ["sampan-dev-Store-Key"]
        metrics = found[frozenset(("cloudwatch:PutMetricData",))]["Condition"]["StringEquals"]
        assert set(metrics) == {"cloudwatch:namespace"}
        everything = [actions(one) for one in found.values() if "*" in resources(one)]
        assert everything == [{"cloudwatch:PutMetricData"}, {"ecr:GetAuthorizationToken"}]

    def test_the_log_is_kept_as_long_as_the_stage_says(self, build):
        build(REAL_TIME).has_resource_properties(
            "AWS::Logs::LogGroup",
            {"LogGroupName": "/aws/sagemaker/Endpoints/sampan-dev-bert", "RetentionInDays": 30},
        )


class TestAsynchronous:
    def test_the_api_does_not_serve_it_and_synthesis_says_so(self, build):
        template = build(QUEUE)
        warned = Annotations.from_stack(template.stack).find_warning("*", Match.any_value())
        (words,) = [entry.entry.data for entry in warned]
        assert "the API does not serve bert" in words
        assert "async/bert/in/" in words
        assert "ask sampan-dev-bert with InvokeEndpointAsync" in words

    def test_bodies_may_be_as_large_as_there(self, build):
        environment = only(build(QUEUE), "AWS::SageMaker::Model")["Properties"]["PrimaryContainer"]["Environment"]
        assert environment["SAMPAN_MAX_PAYLOAD"] == "1000000000"
        assert environment["SAMPAN_PROVIDER"] == "cpu"

    def test_answers_go_to_its_own_prefix_and_are_told(self, build):
        template = build(QUEUE)
        config = only(template, "AWS::SageMaker::EndpointConfig")["Properties"]
        asynchronous = config["AsyncInferenceConfig"]
        assert asynchronous["ClientConfig"] == {"MaxConcurrentInvocationsPerInstance": 7}
        output = asynchronous["OutputConfig"]
        assert resources({"Resource": output["S3OutputPath"]}) == ["s3://sampan-dev-Store-Bucket/async/bert/out/"]
        assert resources({"Resource": output["S3FailurePath"]}) == ["s3://sampan-dev-Store-Bucket/async/bert/failed/"]
        assert output["KmsKeyId"] == config["KmsKeyId"] == {"Fn::ImportValue": "sampan-dev-Store-Key"}
        topics = {output["NotificationConfig"][kind]["Ref"] for kind in ("SuccessTopic", "ErrorTopic")}
        assert topics == set(template.find_resources("AWS::SNS::Topic"))
        template.all_resources_properties("AWS::SNS::Topic", {"KmsMasterKeyId": Match.any_value()})
        assert "RoutingConfig" not in config["ProductionVariants"][0]

    def test_instances_follow_what_waits_from_zero(self, build):
        template = build(QUEUE)
        target = only(template, "AWS::ApplicationAutoScaling::ScalableTarget")["Properties"]
        assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 2)
        (tracking,) = template.find_resources(
            "AWS::ApplicationAutoScaling::ScalingPolicy", {"Properties": {"PolicyType": "TargetTrackingScaling"}}
        ).values()
        policy = tracking["Properties"]["TargetTrackingScalingPolicyConfiguration"]
        assert policy["CustomizedMetricSpecification"]["MetricName"] == "ApproximateBacklogSizePerInstance"
        assert policy["TargetValue"] == 7
        wakes(template, "HasBacklogWithoutCapacity", "EndpointName")

    def test_the_role_exchanges_under_its_own_prefix(self, build):
        found = statements(build(QUEUE))
        read = {name.split(":::")[1] for name in resources(found[frozenset(("s3:GetObject",))])}
        assert read == {"sampan-dev-Store-Bucket/models/bert/*", "sampan-dev-Store-Bucket/async/bert/in/*"}
        written = resources(found[frozenset(("s3:PutObject", "s3:AbortMultipartUpload"))])
        assert {name.split(":::")[1] for name in written} == {
            "sampan-dev-Store-Bucket/async/bert/out/*",
            "sampan-dev-Store-Bucket/async/bert/failed/*",
        }
        topics = build(QUEUE).find_resources("AWS::SNS::Topic")
        assert set(resources(found[frozenset(("sns:Publish",))])) == set(topics)
        grant = found[frozenset(("kms:CreateGrant",))]
        assert grant["Condition"] == {"Bool": {"kms:GrantIsForAWSResource": "true"}}

    def test_a_queue_needs_no_canary(self, build):
        policy = only(build(QUEUE, CANARY), "AWS::SageMaker::Endpoint")["Properties"]["DeploymentConfig"]
        assert policy["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]["Type"] == "ALL_AT_ONCE"


class TestFromZero:
    def test_the_model_is_a_component_on_instances_that_come_and_go(self, build):
        template = build(FROM_ZERO, CANARY)
        config = only(template, "AWS::SageMaker::EndpointConfig")["Properties"]
        (variant,) = config["ProductionVariants"]
        assert variant["ManagedInstanceScaling"] == {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 2}
        assert "ModelName" not in variant
        assert config["EnableNetworkIsolation"] is True
        component = only(template, "AWS::SageMaker::InferenceComponent")
        (model,) = template.find_resources("AWS::SageMaker::Model")
        specification = component["Properties"]["Specification"]
        candidate = {"Fn::GetAtt": [model, "ModelName"]}
        assert specification["ModelName"] == {"Fn::If": ["LiveBertFollows", candidate, {"Ref": "LiveBert"}]}
        assert specification["ComputeResourceRequirements"] == {
            "MinMemoryRequiredInMb": 9000,
            "NumberOfAcceleratorDevicesRequired": 1,
        }
        assert template.to_json()["Outputs"]["CandidateBert"]["Value"] == candidate
        assert set(template.find_resources("AWS::SageMaker::Endpoint")) <= set(component["DependsOn"])

    def test_copies_are_replaced_in_part_and_alarms_take_it_back(self, build):
        template = build(FROM_ZERO, CANARY)
        policy = only(template, "AWS::SageMaker::InferenceComponent")["Properties"]["DeploymentConfig"]
        assert policy["RollingUpdatePolicy"] == {
            "MaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": 50},
            "WaitIntervalInSeconds": 600,
        }
        assert len(policy["AutoRollbackConfiguration"]["Alarms"]) == 1
        template.has_resource_properties(
            "AWS::CloudWatch::Alarm",
            {
                "MetricName": "Invocation5XXErrors",
                "Dimensions": [{"Name": "InferenceComponentName", "Value": "sampan-dev-bert"}],
            },
        )

    def test_a_call_that_finds_nobody_wakes_it(self, build):
        template = build(FROM_ZERO)
        target = only(template, "AWS::ApplicationAutoScaling::ScalableTarget")["Properties"]
        assert target["ResourceId"] == "inference-component/sampan-dev-bert"
        assert target["ScalableDimension"] == "sagemaker:inference-component:DesiredCopyCount"
        assert target["MinCapacity"] == 0
        wakes(template, "NoCapacityInvocationFailures", "InferenceComponentName")


def wakes(template: Template, metric: str, dimension: str) -> None:
    """An alarm on the metric adds one, by a step."""
    (name, step), *rest = template.find_resources(
        "AWS::ApplicationAutoScaling::ScalingPolicy", {"Properties": {"PolicyType": "StepScaling"}}
    ).items()
    assert not rest
    configuration = step["Properties"]["StepScalingPolicyConfiguration"]
    assert configuration["StepAdjustments"] == [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}]
    template.has_resource_properties(
        "AWS::CloudWatch::Alarm",
        {
            "MetricName": metric,
            "Dimensions": [{"Name": dimension, "Value": "sampan-dev-bert"}],
            "AlarmActions": [{"Fn::GetAtt": [name, "Arn"]}],
        },
    )


def test_what_an_older_sampan_packaged_is_packaged_again(build):
    old = {name: value for name, value in RECORD.items() if name != "endpoint"}
    with pytest.raises(InvalidInputError, match=r"its endpoint is not packaged; run: sampan package bert"):
        build(REAL_TIME, packaged=old)


def test_gpus_that_cuda_13_does_not_know_are_refused(build):
    with pytest.raises(InvalidInputError, match=r"ml\.p3\.2xlarge are older than CUDA 13 takes; set"):
        build('placement = "sagemaker"\n[endpoint]\ninstance = "ml.p3.2xlarge"\n')


def test_a_sealed_model_is_refused_where_no_key_reaches_it(tmp_path):
    folder = project(tmp_path, REAL_TIME, {})
    version = folder / "build/functions/bert/endpoint/model/opt/models/bert"
    version.mkdir(parents=True)
    sealed = {"kind": "aes-256-gcm", "file": "model.onnx.sealed", "key": "kms:arn", "wrapped": ""}
    golden = {"file": "golden.npz", "count": 0, "source": "given"}
    plain = {"name": "bert", "version": 3, "digest": DIGEST, "created": "", "model": "model.onnx", "golden": golden}
    plain |= {"files": {}, "inputs": [], "outputs": [], "opset": {}, "operators": {}}
    (version / "manifest.json").write_text(json.dumps({**plain, "sealed": sealed}))
    app = aws_cdk.App(analytics_reporting=False, outdir=str(tmp_path / "cdk.out"))
    with pytest.raises(InvalidInputError, match="is sealed, and its endpoint, which has no network, reaches no key"):
        GpuStack(app, read_project(folder))


def test_what_is_not_packaged_cannot_be_deployed(build):
    found = build(REAL_TIME, packaged=False).to_json()
    (assertion,) = found["Rules"]["BertIsPackaged"]["Assertions"]
    assert assertion["AssertDescription"] == "bert is not packaged; run: sampan package bert"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("min = 3\nmax = 2", "endpoint.min 3 is more than max 2"),
        ("min = 0", "endpoint.min is 0; set scale_to_zero = true, or min = 1"),
    ],
)
def test_instances_that_cannot_be_are_one_sentence(build, table, words):
    with pytest.raises(InvalidInputError, match=words):
        build(f'placement = "sagemaker"\n[endpoint]\n{table}\n')


@pytest.mark.parametrize(
    ("instance", "local"),
    [
        ("ml.g4dn.xlarge", True),
        ("ml.g5.12xlarge", True),
        ("ml.m5d.large", True),
        ("ml.p4de.24xlarge", True),
        ("ml.c6i.xlarge", False),
        ("ml.m5.large", False),
        ("ml.inf2.xlarge", False),
    ],
)
def test_instances_with_disks_of_their_own_take_no_key(instance, local):
    assert has_local_storage(instance) is local


@pytest.mark.parametrize("wrong", [{"instance": "g5.xlarge"}, {"max": 0}, {"replicas": 2}, {"startup": 10}])
def test_the_table_is_checked(wrong):
    with pytest.raises(msgspec.ValidationError, match="endpoint"):
        msgspec.convert({"model": "bert", "endpoint": wrong}, FunctionConfig)
