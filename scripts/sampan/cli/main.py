"""`sampan VERB …`: finds the verb's file, and turns our errors into one line and an exit code.

Data goes to stdout, words to stderr. Exit 0: done; 1: said in one clear line; 2: wrong usage.
Only click is imported here, so that `--help` is instant; a verb imports what it needs when it runs.
"""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from sampan.contract import VERSION

# verb → (its file, one line for the list); the lines stand here so that `--help` imports no verb
VERBS = {
    "init": ("init", "Write the folder of a new project."),
    "add": ("add", "Put a model file into the store, checked and proven."),
    "list": ("list_models", "List the models of the store."),
    "show": ("show", "Show one version: signature, digests, lineage, gates."),
    "history": ("history", "Show versions and every move of the aliases of a model."),
    "verify": ("verify", "Prove that the store, or one version, is sound."),
    "compress": ("compress", "Make a smaller version that holds a gate."),
    "distill": ("distill", "Train a smaller student on a version's answers."),
    "promote": ("promote", "Point an alias at a version."),
    "rollback": ("rollback", "Point an alias back at the version before, once that is proven."),
    "predict": ("predict", "Answer one prediction through the Lambda path."),
    "serve": ("serve", "Serve the store over HTTP, as Lambda and API Gateway would."),
    "new": ("new", "Write a function's folder, for a model of the store."),
    "package": ("package", "Make a function what Lambda runs, and hold it against its budgets."),
    "emulate": ("emulate", "Run packaged functions here, as Lambda would."),
    "plan": ("plan", "Say where a model should run, what that costs, and why not elsewhere."),
    "tune": ("tune", "Measure a function at several memory sizes, and pick the cheapest that does."),
    "deploy": ("deploy", "Bring the project to AWS: plan, ask, deploy, prove, promote."),
    "status": ("status", "Say what a stage runs: versions, aliases, stacks, what was left half done."),
    "usage": ("usage", "Count calls, seconds, bytes and cost by API key and model."),
    "destroy": ("destroy", "Delete a stage from AWS; its store only by name."),
    "push": ("push", "Copy a version to another store."),
    "pull": ("pull", "Copy a version from another store."),
    "doctor": ("doctor", "Say what is installed, what is missing for which verb, and how to get it."),
}


class Verbs(click.Group):
    """Imports a verb's file when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"sampan.cli.{VERBS[cmd_name][0]}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, words) for verb, (_, words) in VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:  # `sampan list | head`: nobody reads any more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(1)
        except Exception as error:
            from sampan.contract.errors import SampanError

            if not isinstance(error, SampanError | OSError) or os.environ.get("SAMPAN_DEBUG"):
                raise
            raise click.ClickException(str(error)) from error


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: sampan add model.onnx --samples samples.npz && sampan serve",
)
@click.option(
    "--store",
    envvar="SAMPAN_STORE",
    show_envvar=True,
    metavar="STORE",
    help="The model store: a folder, or s3://bucket/prefix. Default: model_store/models in the project.",
)
@click.option(
    "--project-dir",
    envvar="SAMPAN_PROJECT",
    show_envvar=True,
    default=".",
    type=click.Path(path_type=Path),
    help="The project. Default: this folder.",
)
@click.version_option(VERSION, prog_name="sampan")
@click.pass_context
def main(ctx: click.Context, store: str | None, project_dir: Path) -> None:
    """From a model file to an answered HTTPS request."""
    ctx.obj = store or str(project_dir / "model_store" / "models")


if __name__ == "__main__":
    main()
