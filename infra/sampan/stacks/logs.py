"""Log groups that a stack makes: named, so that policies can name them, and with a retention."""

from aws_cdk import ArnFormat, RemovalPolicy, Stack
from aws_cdk import aws_logs as logs
from constructs import Construct


class Logs(logs.LogGroup):
    """A log group that goes with its stack."""

    def __init__(self, scope: Construct, id: str, *, name: str, days: int) -> None:
        super().__init__(scope, id, log_group_name=name, removal_policy=RemovalPolicy.DESTROY)
        self.node.default_child.retention_in_days = days

    @property
    def destination(self) -> str:
        """The ARN that services take which write here; the group's own ends with `:*`, which they refuse."""
        arn: str = Stack.of(self).format_arn(
            service="logs",
            resource="log-group",
            resource_name=self.log_group_name,
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )
        return arn
