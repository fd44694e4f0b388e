"""Write the generated files, or with --check say which are out of date.

* docs/cli.md: every verb's --help, as click prints it;
* docs/manifest.schema.json, docs/function.schema.json: JSON Schema of manifest.json and function.toml, from the
  classes that read them.
"""

import importlib
import sys
from pathlib import Path

import click
import msgspec

from sampan.cli.main import VERBS, main
from sampan.contract.function import FunctionConfig
from sampan.contract.manifest import Manifest

ROOT = Path(__file__).resolve().parent.parent


def generated() -> dict[Path, str]:
    """Content of every generated file."""
    return {
        ROOT / "docs/cli.md": _cli(),
        ROOT / "docs/manifest.schema.json": _schema(Manifest),
        ROOT / "docs/function.schema.json": _schema(FunctionConfig),
    }


def _schema(kind: type[msgspec.Struct]) -> str:
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(kind)), indent=2).decode() + "\n"


def _cli() -> str:
    parts = ["# Command line\n\nWritten by `scripts/generate.py` from every verb's `--help`.\n", _help(main, "sampan")]
    for verb, (module, _) in VERBS.items():
        parts.append(_help(importlib.import_module(f"sampan.cli.{module}").command, f"sampan {verb}"))
    return "\n".join(parts)


def _help(command: click.Command, name: str) -> str:
    with click.Context(command, info_name=name, terminal_width=100, max_content_width=100) as context:
        return f"## {name}\n\n```\n{command.get_help(context)}\n```\n"


def run(check: bool) -> int:
    stale = [path for path, text in generated().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"check: {path.relative_to(ROOT)} is out of date; run .venv/bin/python scripts/generate.py")
        else:
            path.write_text(generated()[path])
            print(f"wrote {path.relative_to(ROOT)}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(run("--check" in sys.argv[1:]))
