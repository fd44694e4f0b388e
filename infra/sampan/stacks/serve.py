"""The functions of the stage: one for each model."""

from typing import Any

from aws_cdk import Stack
from constructs import Construct

from sampan.stacks.config import Project
from sampan.stacks.function import ModelFunction


class ServeStack(Stack):
    """One Lambda function a model, each with a role, a log group and aliases of its own."""

    def __init__(self, scope: Construct, project: Project, **options: Any) -> None:
        super().__init__(scope, project.names.stack("Serve"), description="A function for each model", **options)
        for deployable in project.functions:
            ModelFunction(self, project, deployable)
