"""How traffic moves to a new version: CodeDeploy shifts a share, asks golden samples before and after, watches alarms.

    application · canary → per function: hook · alarms · deployment group

`sampan promote` creates the deployments, with an AppSpec that names the hook. Functions and aliases stand here by name,
so the stack can come and go without them.

Source: https://docs.aws.amazon.com/codedeploy/latest/userguide/deployment-steps-lambda.html
"""

from pathlib import Path
from typing import Any

from aws_cdk import ArnFormat, Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_codedeploy as codedeploy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from sampan.stacks.artefact import made, refuse_deployment
from sampan.stacks.config import Deployable, Project
from sampan.stacks.logs import Logs
from sampan.stacks.nag import STREAMS_OF_ONE_GROUP, accept_wildcard
from sampan.stacks.names import LIVE, logical
from sampan.stacks.stopping import stopping_alarm

HOOK = Path(__file__).parent / "hook"
GOLDEN = "golden.json"
RUNTIME = lambda_.Runtime.PYTHON_3_14
MEMORY, TIMEOUT, MARGIN = 256, 900, 30  # MB and seconds of the hook; MARGIN: a cold start above a function's timeout
VERSIONS_OF_ONE_FUNCTION = "the hook asks the version that is to take traffic, whose number no template knows"


class RolloutStack(Stack):
    """CodeDeploy's application and canary, and a deployment group for each function that runs on Lambda."""

    def __init__(self, scope: Construct, project: Project, **options: Any) -> None:
        super().__init__(scope, project.names.stack("Rollout"), description="Canary deployments", **options)
        codedeploy.CfnApplication(
            self, "Application", application_name=project.names.deployment_application(), compute_platform="Lambda"
        )
        rollout = project.config.rollout
        routing = codedeploy.CfnDeploymentConfig.TrafficRoutingConfigProperty(
            type="TimeBasedCanary",
            time_based_canary=codedeploy.CfnDeploymentConfig.TimeBasedCanaryProperty(
                canary_interval=rollout.minutes, canary_percentage=rollout.percent
            ),
        )
        config = codedeploy.CfnDeploymentConfig(
            self, "Canary", compute_platform="Lambda", traffic_routing_config=routing
        )
        for deployable in project.functions:
            if not deployable.heavy:
                Canary(self, project, deployable, config)


class Canary(Construct):
    """The deployment group of one function."""

    def __init__(
        self, scope: RolloutStack, project: Project, deployable: Deployable, config: codedeploy.CfnDeploymentConfig
    ) -> None:
        super().__init__(scope, logical(deployable.name))
        self._project, self._deployable = project, deployable
        self._function = project.names.function(deployable.name)
        if deployable.packaged is None:
            refuse_deployment(self, deployable)
        hook = self._hook()
        alarms = self._alarms()
        self._group(config, self._service_role(hook, alarms), alarms)

    def _hook(self) -> lambda_.Function:
        names, deployable = self._project.names, self._deployable
        name, patience = names.hook(deployable.name), min(deployable.config.timeout + MARGIN, TIMEOUT - 2 * MARGIN)
        log = Logs(self, "HookLog", name=f"/aws/lambda/{name}", days=self._project.config.observe.log_days)
        return lambda_.Function(
            self,
            "Hook",
            function_name=name,
            description=f"Asks {deployable.name} its golden samples before and after traffic",
            runtime=RUNTIME,
            handler="index.handler",
            code=lambda_.Code.from_asset(str(HOOK), exclude=["__pycache__"]),
            layers=self._golden(),
            memory_size=MEMORY,
            timeout=Duration.seconds(TIMEOUT),
            environment={"FUNCTION": self._function, "ALIAS": LIVE, "PATIENCE": str(patience)},
            role=self._hook_role(log),
            log_group=log,
        )

    def _golden(self) -> list[lambda_.ILayerVersion]:
        """`golden.json` as `sampan package` wrote it, at /opt."""
        if self._deployable.packaged is None:
            return []
        file = made(self._deployable, GOLDEN)
        code = lambda_.Code.from_asset(str(file.parent), exclude=["*", f"!{GOLDEN}"])
        words = f"Golden samples of {self._deployable.packaged.model}"
        return [lambda_.LayerVersion(self, "Golden", code=code, description=words, compatible_runtimes=[RUNTIME])]

    def _hook_role(self, log: Logs) -> iam.Role:
        group = self._arn("codedeploy", "deploymentgroup", self._group_path())
        versions = f"{self._arn('lambda', 'function', self._function)}:*"
        role = _role(
            self,
            "HookRole",
            "lambda.amazonaws.com",
            f"What the hook of {self._function} may do",
            _allow([log.log_group_arn], "logs:CreateLogStream", "logs:PutLogEvents"),
            _allow([versions], "lambda:InvokeFunction"),
            _allow([group], "codedeploy:GetDeployment", "codedeploy:PutLifecycleEventHookExecutionStatus"),
        )
        accept_wildcard(role, log.log_group_arn, STREAMS_OF_ONE_GROUP)
        accept_wildcard(role, versions, VERSIONS_OF_ONE_FUNCTION)
        return role

    def _service_role(self, hook: lambda_.Function, alarms: list[cloudwatch.CfnAlarm]) -> iam.Role:
        """CodeDeploy's own: AWS's managed policy lets it move every alias of the account."""
        function = self._arn("lambda", "function", self._function)
        aliases = ("lambda:GetAlias", "lambda:UpdateAlias", "lambda:GetProvisionedConcurrencyConfig")
        return _role(
            self,
            "Role",
            "codedeploy.amazonaws.com",
            f"How CodeDeploy moves the traffic of {self._function}",
            _allow([function, f"{function}:{LIVE}"], *aliases),
            _allow([hook.function_arn], "lambda:InvokeFunction"),
            _allow([alarm.attr_arn for alarm in alarms], "cloudwatch:DescribeAlarms"),
        )

    def _alarms(self) -> list[cloudwatch.CfnAlarm]:
        """What stops a rollout: errors, refused calls and, where there is a limit, slow answers of the live alias."""
        rollout = self._project.config.rollout
        limit = rollout.max_p95_ms or self._deployable.config.budgets.p95_ms
        alarms = [
            self._alarm("errors", "Errors", rollout.max_errors, statistic="Sum"),
            self._alarm("throttles", "Throttles", rollout.max_errors, statistic="Sum"),
        ]
        if limit:
            percentile = f"p{max(95, 100 - rollout.percent / 2):g}"
            alarms.append(self._alarm("latency", "Duration", limit, extended_statistic=percentile))
        return alarms

    def _alarm(self, what: str, metric: str, threshold: float, **statistic: str) -> cloudwatch.CfnAlarm:
        dimensions = {"FunctionName": self._function, "Resource": f"{self._function}:{LIVE}"}
        names, name = self._project.names, self._deployable.name
        return stopping_alarm(self, names, name, what, ("AWS/Lambda", metric), dimensions, threshold, **statistic)

    def _group(self, config: codedeploy.CfnDeploymentConfig, role: iam.Role, alarms: list[cloudwatch.CfnAlarm]) -> None:
        kind = codedeploy.CfnDeploymentGroup
        names = [kind.AlarmProperty(name=alarm.ref) for alarm in alarms]
        group = kind(
            self,
            "Group",
            application_name=self._project.names.deployment_application(),
            deployment_group_name=self._project.names.deployment_group(self._deployable.name),
            service_role_arn=role.role_arn,
            deployment_config_name=config.ref,
            deployment_style=kind.DeploymentStyleProperty(
                deployment_type="BLUE_GREEN", deployment_option="WITH_TRAFFIC_CONTROL"
            ),
            alarm_configuration=kind.AlarmConfigurationProperty(
                enabled=True, ignore_poll_alarm_failure=False, alarms=names
            ),
            auto_rollback_configuration=kind.AutoRollbackConfigurationProperty(
                enabled=True,
                events=["DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM", "DEPLOYMENT_STOP_ON_REQUEST"],
            ),
        )
        group.add_resource_dependency(Stack.of(self).node.find_child("Application"))

    def _group_path(self) -> str:
        names = self._project.names
        return f"{names.deployment_application()}/{names.deployment_group(self._deployable.name)}"

    def _arn(self, service: str, resource: str, name: str) -> str:
        arn: str = Stack.of(self).format_arn(
            service=service, resource=resource, resource_name=name, arn_format=ArnFormat.COLON_RESOURCE_NAME
        )
        return arn


def _role(scope: Construct, id: str, service: str, words: str, *statements: iam.PolicyStatement) -> iam.Role:
    return iam.Role(
        scope,
        id,
        assumed_by=iam.ServicePrincipal(service),
        description=words,
        inline_policies={"own": iam.PolicyDocument(statements=list(statements))},
    )


def _allow(resources: list[str], *actions: str) -> iam.PolicyStatement:
    return iam.PolicyStatement(actions=list(actions), resources=resources)
