"""The command as it was typed, so that a report can say how to repeat it."""

import shlex
from collections.abc import Iterator
from typing import Any

import click
from click.core import ParameterSource

PROGRAM = "sampan"


def typed(context: click.Context) -> str:
    """A line for a shell: the program, the verb, and every option and argument given on the command line."""
    if context.parent is None:
        return shlex.join([PROGRAM, *_given(context)])
    return f"{typed(context.parent)} {shlex.join([context.info_name or '', *_given(context)])}"


def _given(context: click.Context) -> Iterator[str]:
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            yield from _words(parameter, context.params[name])


def _words(parameter: click.Parameter, value: Any) -> Iterator[str]:
    if isinstance(parameter, click.Argument):
        yield from map(str, value if isinstance(value, tuple) else (value,))
    elif isinstance(parameter, click.Option) and parameter.is_flag:
        yield (parameter.opts if value else parameter.secondary_opts)[0]
    else:
        for item in value if parameter.multiple else (value,):
            yield parameter.opts[0]
            yield from map(str, item if isinstance(item, tuple) else (item,))
