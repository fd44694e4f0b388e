"""The gateways: against moto where it plays along, against answers written down where it does not."""

import io
import json
from collections.abc import Iterator
from typing import Any

import boto3
import numpy as np
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from sampan.aws.buckets import Content, S3Buckets
from sampan.aws.deployments import CodeDeployments, Progress
from sampan.aws.endpoints import Configuration, Endpoint, SageMakerComponents, SageMakerEndpoints
from sampan.aws.formation import CloudFormationStacks, Failed
from sampan.aws.functions import FAILED, LambdaFunctions, Provisioned
from sampan.aws.session import CloudError, Session
from sampan.contract.errors import ModelError
from sampan.rollout.answers import outputs_of

pytestmark = pytest.mark.infra


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Credentials that nobody knows, and AWS in process."""
    for name, value in {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield


class Client:
    """A client that gives the answers written down, by operation; an exception is raised."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, operation: str) -> Any:
        def call(**arguments: Any) -> Any:
            self.asked.append((operation, arguments))
            answer = self.answers[operation]
            answer = answer.pop(0) if isinstance(answer, list) else answer
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    def get_paginator(self, operation: str) -> Any:
        class Pages:
            paginate = staticmethod(lambda **arguments: [getattr(self, operation)(**arguments)])

        return Pages


class Written(Session):
    """A session whose clients are written down."""

    def __init__(self, **clients: Client) -> None:
        self._written = clients

    def client(self, service: str) -> Any:
        return self._written[service]


def refusal(code: str, message: str = "no", operation: str = "Operation") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def make_function() -> None:
    role = boto3.client("iam").create_role(RoleName="r", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    client = boto3.client("lambda")
    client.create_function(
        FunctionName="f", PackageType="Image", Code={"ImageUri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/i:t"},
        Role=role,
    )  # fmt: skip
    client.publish_version(FunctionName="f", Description="m:1 sha256:x")
    client.update_function_configuration(FunctionName="f", MemorySize=256)
    client.update_function_code(FunctionName="f", ImageUri="123456789012.dkr.ecr.us-east-1.amazonaws.com/i:u")
    client.publish_version(FunctionName="f", Description="m:2 sha256:y")
    client.create_alias(FunctionName="f", Name="live", FunctionVersion="1")


def test_versions_and_aliases_of_a_function():
    make_function()
    functions = LambdaFunctions(Session())
    assert [(each.number, each.description) for each in functions.versions("f")] == [
        ("1", "m:1 sha256:x"),
        ("2", "m:2 sha256:y"),
    ]
    alias = functions.alias("f", "live")
    assert alias is not None
    assert functions.move("f", "live", "2", alias.revision).version == "2"
    assert functions.versions("g") == []
    assert functions.alias("f", "other") is None
    assert functions.alias("g", "live") is None


def test_a_move_names_the_revision_and_clears_the_weights():
    client = Client(update_alias={"FunctionVersion": "2", "RevisionId": "r2"})
    LambdaFunctions(Written(**{"lambda": client})).move("f", "live", "2", "r1")
    assert client.asked[0][1]["RevisionId"] == "r1"
    assert client.asked[0][1]["RoutingConfig"] == {"AdditionalVersionWeights": {}}
    client = Client(update_alias=refusal("PreconditionFailedException", "The RevisionId provided does not match"))
    with pytest.raises(CloudError, match=r"moving the alias live of the function f.*changed it meanwhile"):
        LambdaFunctions(Written(**{"lambda": client})).move("f", "live", "2", "r1")


def test_a_function_that_fails_is_told_from_aws_that_refuses():
    def answers(payload: bytes, **more: str) -> LambdaFunctions:
        return LambdaFunctions(Written(**{"lambda": Client(invoke={"Payload": io.BytesIO(payload), **more})}))

    assert answers(b'{"statusCode": 200}').invoke("f", "1", {}) == {"statusCode": 200}
    with pytest.raises(CloudError, match="f:1 failed: it burst") as raised:
        answers(b'{"errorMessage": "it burst"}', FunctionError="Unhandled").invoke("f", "1", {})
    assert raised.value.code == FAILED
    with pytest.raises(CloudError, match="not JSON"):
        answers(b"<html>").invoke("f", "1", {})
    busy = LambdaFunctions(Written(**{"lambda": Client(invoke=refusal("TooManyRequestsException"))}))
    with pytest.raises(CloudError, match="throttles"):
        busy.invoke("f", "1", {})


def test_provisioned_instances():
    told = {
        "RequestedProvisionedConcurrentExecutions": 5,
        "AvailableProvisionedConcurrentExecutions": 2,
        "Status": "IN_PROGRESS",
    }
    none = refusal("ProvisionedConcurrencyConfigNotFoundException")
    functions = LambdaFunctions(Written(**{"lambda": Client(get_provisioned_concurrency_config=[told, none])}))
    assert functions.provisioned("f", "live") == Provisioned(5, 2, "IN_PROGRESS")
    assert functions.provisioned("f", "live") is None


def test_stacks_of_cloudformation():
    stacks = CloudFormationStacks(Session())
    assert stacks.stack("s") is None
    assert stacks.template("s") is None
    assert stacks.resources("s", "AWS::S3::Bucket") == []
    template = {
        "Resources": {"B": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "a-bucket"}}},
        "Outputs": {"Bucket": {"Value": {"Ref": "B"}}},
    }
    boto3.client("cloudformation").create_stack(StackName="s", TemplateBody=json.dumps(template))
    found = stacks.stack("s")
    assert found is not None
    assert found.sound
    assert not found.busy
    assert found.outputs == {"Bucket": "a-bucket"}
    assert stacks.template("s") == template
    assert stacks.resources("s", "AWS::S3::Bucket") == ["a-bucket"]
    assert stacks.failures("s") == []
    stacks.delete("s")
    assert stacks.stack("s") is None


def test_the_first_cause_of_a_failure_and_not_what_it_cancelled():
    def event(name: str, status: str, reason: str = "") -> dict[str, str]:
        return {"LogicalResourceId": name, "ResourceType": "T", "ResourceStatus": status, "StackName": "s"} | {
            "ResourceStatusReason": reason
        }

    events = [
        event("s", "UPDATE_ROLLBACK_COMPLETE"),
        event("B", "UPDATE_FAILED", "Resource update cancelled"),
        event("A", "UPDATE_FAILED", "no room"),
        event("s", "UPDATE_IN_PROGRESS"),
        event("A", "CREATE_FAILED", "of an earlier time"),
    ]
    client = Client(describe_stack_events={"StackEvents": events})
    assert CloudFormationStacks(Written(cloudformation=client)).failures("s") == [Failed("A", "T", "no room")]


def test_deployments_of_code_deploy():
    client = Client(
        create_deployment={"deploymentId": "d-1"},
        get_deployment=[
            {"deploymentInfo": {"status": "InProgress"}},
            {"deploymentInfo": {"status": "Stopped", "errorInformation": {"message": "ALARM_ACTIVE"}}},
        ],
        list_deployment_targets={"targetIds": ["t"]},
        batch_get_deployment_targets={
            "deploymentTargets": [{"lambdaTarget": {"lambdaFunctionInfo": {"targetVersionWeight": 0.1}}}]
        },
        list_deployments=[{"deployments": ["d-1"]}, {"deployments": []}],
        stop_deployment={},
    )
    deployments = CodeDeployments(Written(codedeploy=client))
    assert deployments.start("app", "group", {"version": 0.0}, "why") == "d-1"
    revision = client.asked[0][1]["revision"]
    assert json.loads(revision["appSpecContent"]["content"]) == {"version": 0.0}
    assert deployments.progress("d-1") == Progress("InProgress", 0.1)
    assert deployments.progress("d-1") == Progress("Stopped", 0.0, "ALARM_ACTIVE")
    assert [deployments.running("app", "group") for _ in range(2)] == ["d-1", None]
    deployments.stop("d-1")
    assert client.asked[-1] == ("stop_deployment", {"deploymentId": "d-1", "autoRollbackEnabled": True})


def test_endpoints_of_sagemaker():
    client = boto3.client("sagemaker")
    role = "arn:aws:iam::123456789012:role/r"
    client.create_model(ModelName="m", ExecutionRoleArn=role, PrimaryContainer={"Image": "i"})
    for name in ("one", "two"):
        client.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[
                {"VariantName": "v", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
            ],
        )
    client.create_endpoint(EndpointName="e", EndpointConfigName="one")
    endpoints = SageMakerEndpoints(Session())
    found = endpoints.endpoint("e")
    assert found == Endpoint("InService", "one")
    assert found.ready
    assert endpoints.endpoint("other") is None


def test_configurations_by_tag_the_newest_first():
    arn = "arn:aws:sagemaker:us-east-1:123456789012:endpoint-config/"
    tags = [{"Key": "sampan:endpoint", "Value": "e"}, {"Key": "sampan:model", "Value": "m:1 x"}]
    sagemaker = Client(
        list_endpoint_configs={
            "EndpointConfigs": [
                {"EndpointConfigName": name, "EndpointConfigArn": arn + name} for name in ("New", "Old", "No")
            ]
        },
        describe_endpoint={"EndpointStatus": "InService", "ProductionVariants": [{"DesiredInstanceCount": 3}]},
        update_endpoint={},
    )
    tagging = Client(
        get_resources={"ResourceTagMappingList": [{"ResourceARN": arn + name, "Tags": tags} for name in ("old", "new")]}
    )
    endpoints = SageMakerEndpoints(Written(sagemaker=sagemaker, resourcegroupstaggingapi=tagging))
    said = {"sampan:endpoint": "e", "sampan:model": "m:1 x"}
    assert endpoints.configurations("sampan:endpoint", "e") == [Configuration("New", said), Configuration("Old", said)]
    endpoints.update("e", "New")
    asked = sagemaker.asked[-1][1]
    assert asked["RetainDeploymentConfig"] is True
    assert asked["RetainAllVariantProperties"] is True
    assert "ExcludeRetainedVariantProperties" not in asked


def test_an_endpoint_that_sleeps_wakes_for_its_update_and_one_that_bakes_says_so():
    sagemaker = Client(
        describe_endpoint={
            "EndpointStatus": "Updating",
            "EndpointConfigName": "Old",
            "ProductionVariants": [{"DesiredInstanceCount": 0}],
            "PendingDeploymentSummary": {"ProductionVariants": [{"VariantStatus": [{"Status": "Baking"}]}]},
        },
        update_endpoint={},
    )
    endpoints = SageMakerEndpoints(Written(sagemaker=sagemaker))
    assert endpoints.endpoint("e") == Endpoint("Updating", "Old", baking=True)
    endpoints.update("e", "New")
    excluded = sagemaker.asked[-1][1]["ExcludeRetainedVariantProperties"]
    assert excluded == [{"VariantPropertyType": "DesiredInstanceCount"}]


def test_a_component_keeps_what_it_asks_for():
    needs = {"MinMemoryRequiredInMb": 1024}
    client = Client(
        describe_inference_component={
            "InferenceComponentStatus": "InService",
            "Specification": {"ModelName": "one", "ComputeResourceRequirements": needs, "Container": {"Image": "i"}},
        },
        update_inference_component={},
    )
    components = SageMakerComponents(Written(sagemaker=client))
    assert components.endpoint("e") == Endpoint("InService", "one")
    components.update("e", "two")
    assert client.asked[-1][1]["Specification"] == {"ModelName": "two", "ComputeResourceRequirements": needs}


def test_a_bucket_goes_with_every_version_in_it():
    client = boto3.client("s3")
    client.create_bucket(Bucket="a-bucket")
    client.put_bucket_versioning(Bucket="a-bucket", VersioningConfiguration={"Status": "Enabled"})
    for content in (b"one", b"three"):
        client.put_object(Bucket="a-bucket", Key="k", Body=content)
    client.delete_object(Bucket="a-bucket", Key="k")
    buckets = S3Buckets(Session())
    assert buckets.content("a-bucket") == Content(3, 8)
    gone: list[int] = []
    buckets.delete("a-bucket", gone.append)
    assert sum(gone) == 3
    assert buckets.content("a-bucket") is None


def test_an_object_that_is_locked_is_said():
    refused = {"Errors": [{"Key": "k", "Code": "AccessDenied", "Message": "it is locked"}]}
    pages = {"Versions": [{"Key": "k", "VersionId": "1"}]}
    buckets = S3Buckets(Written(s3=Client(list_object_versions=pages, delete_objects=refused)))
    with pytest.raises(CloudError, match=r"s3://b/k cannot be deleted \(AccessDenied: it is locked\)"):
        buckets.delete("b", lambda count: None)


def test_a_key_is_forgotten_once():
    key = boto3.client("kms").create_key()["KeyMetadata"]["KeyId"]
    buckets = S3Buckets(Session())
    buckets.forget_key(key, 30)
    buckets.forget_key(key, 30)
    assert boto3.client("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "PendingDeletion"


def test_answers_of_a_function_are_read():
    numbers = {"name": "y", "datatype": "FP32", "shape": [2], "data": [1, 2]}
    result = {"statusCode": 200, "headers": {}, "body": json.dumps({"outputs": [numbers]}), "isBase64Encoded": False}
    np.testing.assert_array_equal(outputs_of(result, "f")["y"], np.array([1, 2], np.float32))


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("text", "does not answer as a function of Sampan does: text"),
        ({"statusCode": 500, "body": '{"error": "it burst"}'}, "f answers 500: it burst"),
        ({"statusCode": 502, "body": "<html>"}, "f answers 502: <html>"),
        ({"statusCode": 200, "body": '{"outputs": [{"name": "y"}]}'}, "cannot be read"),
        (
            {
                "statusCode": 200,
                "headers": {"Inference-Header-Content-Length": "84"},
                "body": '{"outputs":[{"name":"y","datatype":"FP32","shape":[9],"parameters":{"binary_data_size":1}}]}',
            },
            "cannot be read",
        ),
    ],
)
def test_answers_that_are_none_are_said(result: Any, words: str):
    with pytest.raises(ModelError, match=words):
        outputs_of(result, "f")
