"""`python -m sampan.stacks`: the project in the current folder to CloudFormation templates.

`cdk synth` runs it. `-c stage=prod` takes another stage; `-c check=true` also holds the templates to CloudFormation's
schemas and to cdk-nag's AwsSolutions, which takes several times as long.
"""

import sys
from pathlib import Path

from sampan.contract.errors import SampanError
from sampan.stacks.config import read_project


def main() -> int:
    """Synthesise the stage that the CDK's context names.

    Returns:
        The exit code.
    """
    try:
        from aws_cdk import App

        from sampan.stacks.app import add_stacks
        from sampan.stacks.nag import check
    except ImportError as error:
        print(f"the stacks need the CDK's libraries ({error}); pip install 'sampan[infra]'", file=sys.stderr)
        return 1
    app = App(analytics_reporting=False, builtin_cloud_formation_validation=False)
    try:
        add_stacks(app, read_project(Path.cwd(), app.node.try_get_context("stage")))
    except SampanError as error:
        print(error, file=sys.stderr)
        return 1
    if app.node.try_get_context("check"):
        check(app)
    app.synth()
    return 0


if __name__ == "__main__":
    sys.exit(main())
