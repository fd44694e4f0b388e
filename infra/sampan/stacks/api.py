"""The API in front of the functions: REST (`rest_api`) or HTTP (`http_api`), as the stage says."""

from typing import Any

from aws_cdk import CfnOutput, Stack
from constructs import Construct

from sampan.stacks.config import Project
from sampan.stacks.http_api import ModelHttpApi
from sampan.stacks.logs import Logs
from sampan.stacks.names import API_ID, URL
from sampan.stacks.rest_api import ModelRestApi


class ApiStack(Stack):
    """The API and its access log."""

    def __init__(self, scope: Construct, project: Project, **options: Any) -> None:
        super().__init__(scope, project.names.stack("Api"), description="The API in front of the models", **options)
        config = project.config.api
        log = Logs(self, "AccessLog", name=project.names.access_logs(), days=config.log_days)
        kind = ModelRestApi if config.kind == "rest" else ModelHttpApi
        api = kind(self, project, log)
        CfnOutput(self, URL, value=api.url)
        CfnOutput(self, API_ID, value=api.api_id)
