"""Where the gates of `sampan compress` come from: options, a file, the function that serves the model, a default."""

from pathlib import Path

import click

from sampan.cli.output import say


def gates_in_force(context: click.Context, ref: str, given: tuple[str, ...], file: Path | None) -> tuple[str, ...]:
    """The gates to hold, empty for the default. What was not given by --gate is told before the work starts.

    Raises:
        UsageError: --gate and --gates together.
        InvalidInputError: a file's gates cannot be read, or several functions have some.
    """
    from sampan.compress import own
    from sampan.compress.declared import gates_of, read_gates
    from sampan.store import parse_reference

    project: Path = context.find_root().params["project_dir"]
    own.importable(project)
    if given and file:
        raise click.UsageError("give --gate or --gates, not both")
    if given:
        return given
    declared = read_gates(file) if file else gates_of(project, parse_reference(ref).name)
    if declared is None:
        say_default(context.obj, ref)
        return ()
    say(f"gates of {declared.file}: {', '.join(declared.gates)}")
    return declared.gates


def say_default(location: str, ref: str) -> None:
    """Tell the default gate, and why it is the one."""
    from sampan.compress.gates import default
    from sampan.store import open_store

    manifest = open_store(location).find(ref).manifest
    kind = "is a classifier" if default(manifest).startswith("top1") else "has no labels and no classification task"
    say(f"no --gate given: {default(manifest)}, as {manifest.ref} {kind}")
