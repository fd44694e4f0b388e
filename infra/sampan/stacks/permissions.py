"""What a function may do: write its log, and no more than its model needs."""

from aws_cdk import ArnFormat, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from sampan.stacks.config import Deployable, Project
from sampan.stacks.nag import STREAMS_OF_ONE_GROUP, TRACES_HAVE_NO_RESOURCE, accept_wildcard
from sampan.stacks.names import LIVE, logical

KMS = "kms:"  # before a key's ARN, in the manifest of a model that KMS sealed


def function_role(scope: Construct, project: Project, deployable: Deployable) -> iam.Role:
    """The role of a function of its own, without managed policies."""
    streams = _log_streams(scope, project.names.log_group(deployable.name))
    statements = [iam.PolicyStatement(actions=["logs:CreateLogStream", "logs:PutLogEvents"], resources=[streams])]
    sealed = deployable.manifest.sealed if deployable.manifest else None
    if sealed and sealed.key.startswith(KMS):
        statements.append(_unseal(sealed.key.removeprefix(KMS), deployable.model))
    if deployable.heavy:
        statements.append(_invoke(scope, project.names.endpoint(deployable.name), deployable.from_zero))
    role = iam.Role(
        scope,
        "Role",
        assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
        description=f"What {project.names.function(deployable.name)} may do",
        inline_policies={"own": iam.PolicyDocument(statements=statements)},
    )
    accept_wildcard(role, streams, STREAMS_OF_ONE_GROUP)
    if deployable.config.trace:  # the CDK adds X-Ray's permissions to the role of a function that traces
        accept_wildcard(role, "*", TRACES_HAVE_NO_RESOURCE)
    return role


def _log_streams(scope: Construct, group: str) -> str:
    arn: str = Stack.of(scope).format_arn(
        service="logs", resource=f"log-group:{group}:log-stream:*", arn_format=ArnFormat.NO_RESOURCE_NAME
    )
    return arn


def _unseal(key: str, model: str) -> iam.PolicyStatement:
    """The key that sealed the model, and only for data keys of this model (`sampan.serving.sealed.context`)."""
    return iam.PolicyStatement(
        actions=["kms:Decrypt"],
        resources=[key],
        conditions={"StringEquals": {"kms:EncryptionContext:sampan:model": model}},
    )


def _invoke(scope: Construct, endpoint: str, component: bool) -> iam.PolicyStatement:
    """The endpoint, and its inference component of the same name, which InvokeEndpoint may name.

    Source: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsagemaker.html
    """
    kinds = ("endpoint", "inference-component") if component else ("endpoint",)
    stack = Stack.of(scope)
    arns = [stack.format_arn(service="sagemaker", resource=kind, resource_name=endpoint) for kind in kinds]
    return iam.PolicyStatement(actions=["sagemaker:InvokeEndpoint"], resources=arns)


def live_arn(scope: Construct, function: str) -> str:
    """ARN of a function's live alias, by the function's name on AWS."""
    arn: str = Stack.of(scope).format_arn(
        service="lambda",
        resource="function",
        resource_name=f"{function}:{LIVE}",
        arn_format=ArnFormat.COLON_RESOURCE_NAME,
    )
    return arn


def allow_api(scope: Construct, project: Project, deployable: Deployable, source: str) -> str:
    """Let one API invoke the live alias of a function; gives the alias' ARN.

    Args:
        source: ARN of what calls.
    """
    arn = live_arn(scope, project.names.function(deployable.name))
    lambda_.CfnPermission(
        scope,
        f"Invoke{logical(deployable.name)}",
        action="lambda:InvokeFunction",
        function_name=arn,
        principal="apigateway.amazonaws.com",
        source_arn=source,
    )
    return arn
