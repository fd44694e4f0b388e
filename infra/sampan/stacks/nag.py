"""Rules of cdk-nag that do not hold here, each with its reason; stacks accept them beside what they are of.

`cdk synth -c check=true` fails where a rule neither holds nor is accepted.
"""

from typing import Any

from aws_cdk import Acknowledgment, App, CloudFormationValidatePlugin, Stack, Validations
from aws_cdk import aws_iam as iam
from constructs import IConstruct

ACCESS_LOGS_SUFFICE = (
    "execution logs may hold bodies and headers; the access log has a line a request, and so has the function's log"
)
HANDLER_VALIDATES = (
    "bodies are tensors, as the model's signature says; the handler checks shape, datatype and size, and answers 400"
)
ROLE_OF_THE_ACCOUNT = (
    "API Gateway writes logs by one role of the account, and refuses one that may less than this policy"
)
RUNTIME_OF_THE_LAYER = "function.toml says which Python the dependencies of the layer were built and measured for"
STREAMS_OF_ONE_GROUP = "Lambda names the log streams of the function's own log group at run time"
TRACES_HAVE_NO_RESOURCE = "X-Ray's PutTraceSegments and PutTelemetryRecords know no resources"


def accept(scope: IConstruct, rule: str, reason: str) -> None:
    """Accept that a rule does not hold below a construct; `accept_wildcard` for those of policies."""
    Validations.of(scope).acknowledge(Acknowledgment(id=rule, reason=reason))


def accept_wildcard(scope: IConstruct, resource: str, reason: str) -> None:
    """Accept that policies below a construct name this very resource, which has a `*`."""
    accept(scope, f"AwsSolutions-IAM5[Resource::{_shown(Stack.of(scope).resolve(resource))}]", reason)


def accept_managed(scope: IConstruct, name: str, reason: str) -> None:
    """Accept that roles below a construct have this managed policy of AWS."""
    arn = iam.ManagedPolicy.from_aws_managed_policy_name(name).managed_policy_arn
    accept(scope, f"AwsSolutions-IAM4[Policy::{_shown(Stack.of(scope).resolve(arn))}]", reason)


def _shown(value: Any) -> str:
    """A resolved text as cdk-nag shows it: `arn:<AWS::Partition>:logs:…`."""
    if isinstance(value, str):
        return value
    ((function, given),) = value.items()
    if function == "Fn::Join":
        return "".join(map(_shown, given[1]))
    if function == "Fn::ImportValue":
        return str(given)
    return f"<{given}>" if function == "Ref" else f"<{'.'.join(given)}>"


def check(app: App) -> None:
    """Have the app checked against CloudFormation's schemas and AwsSolutions when it is synthesised."""
    from cdk_nag import AwsSolutionsChecks

    Validations.of(app).add_plugins(CloudFormationValidatePlugin(), AwsSolutionsChecks(app))
