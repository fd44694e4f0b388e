"""`sampan doctor`: what is installed, what is missing for which verb, and how to get it."""

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import click

from sampan.cli.output import json_option, print_json, print_table


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that some verbs need: a Python distribution, or a program on PATH."""

    name: str
    verbs: str
    remedy: str
    program: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of a need; `found` is its version or path, empty when it is missing."""

    name: str
    verbs: str
    found: str
    remedy: str
    optional: bool


_RUNTIME = "serve, predict, add, compress, verify, promote, rollback"
NEEDS = (
    Need("numpy", _RUNTIME, "pip install 'sampan[runtime]'"),
    Need("onnxruntime", _RUNTIME, "pip install 'sampan[runtime]'"),
    Need("orjson", _RUNTIME, "pip install 'sampan[runtime]'"),
    Need("msgspec", _RUNTIME, "pip install 'sampan[runtime]'"),
    Need("pysimdjson", "serve, predict", "pip install 'sampan[runtime]'"),
    Need("pybase64", "serve, predict", "pip install 'sampan[runtime]'"),
    Need("aws-lambda-powertools", "serve, predict", "pip install 'sampan[runtime]'"),
    Need("fastapi", "serve --mode asgi, the pages of serve", "pip install 'sampan[runtime]'"),
    Need("mangum", "the pages of serve", "pip install 'sampan[runtime]'"),
    Need("onnx", "add, compress", "pip install sampan"),
    Need("rich", "tables and progress", "pip install sampan"),
    Need("uvicorn", "serve", "pip install sampan"),
    Need("tokenizers", "models with a text pipeline", "pip install 'sampan[text]'", optional=True),
    Need("pillow", "models with an image pipeline", "pip install 'sampan[image]'", optional=True),
    Need("aws-xray-sdk", "traces (SAMPAN_TRACE=1)", "pip install 'sampan[trace]'", optional=True),
    Need("onnxslim", "compress --recipe simplify", "pip install 'sampan[compress]'", optional=True),
    Need("onnx-ir", "compress --recipe blocks-int8, blocks-int4", "pip install 'sampan[compress]'", optional=True),
    Need("sympy", "compress --recipe fuse", "pip install 'sampan[compress]'", optional=True),
    Need("zstandard", "compress --zstd, versions stored so", "pip install 'sampan[zstd]'", optional=True),
    Need("jinja2", "the page of compress --report", "pip install 'sampan[report]'", optional=True),
    Need("matplotlib", "plots of compress --report, distill and tune", "pip install 'sampan[report]'", optional=True),
    Need("cryptography", "package --key, sealed models", "pip install 'sampan[encrypt]'", optional=True),
    Need("cyclonedx-python-lib", "package: bill of materials", "pip install 'sampan[package]'", optional=True),
    Need("dockerfile-parse", "package", "pip install 'sampan[package]'", optional=True),
    Need("model-signing", "package --sign", "pip install 'sampan[package]'", optional=True),
    Need("tritonclient", "package: engine triton", "pip install 'sampan[triton]'", optional=True),
    Need("docker", "package, tune, emulate --level docker", "apt-get install docker.io", program=True, optional=True),
    Need("boto3", "deploy, status, usage, stores at s3://", "pip install 'sampan[deploy]'", optional=True),
    Need("tenacity", "functions before an endpoint", "pip install 'sampan[remote]'", optional=True),
    Need("aws-cdk-lib", "deploy", "pip install 'sampan[infra]'", optional=True),
    Need("node", "deploy", "apt-get install nodejs", program=True, optional=True),
    Need("sam", "emulate --level sam", "pip install aws-sam-cli", program=True, optional=True),
    Need("qemu-x86_64", "compress: CPUs without VNNI", "apt-get install qemu-user", program=True, optional=True),
    Need("uv", "a faster scripts/setup", "pip install uv", program=True, optional=True),
)


@click.command(epilog="Example: sampan doctor -o json")
@json_option
@click.pass_obj
def command(store: str, output: str) -> None:
    """Say what is installed, what is missing for which verb, and how to get it.

    Exits with 1 when something is missing that is not optional.
    """
    report(store, output, examine(NEEDS))


def report(store: str, output: str, findings: list[Finding]) -> None:
    """Print the findings.

    Raises:
        ClickException: something is missing that is not optional.
    """
    place = _store_state(store)
    if output == "json":
        print_json({**_machine(), "store": place, "findings": [asdict(finding) for finding in findings]})
    else:
        _print(findings, place)
    missing = [finding for finding in findings if not finding.found and not finding.optional]
    if missing:
        names = ", ".join(finding.name for finding in missing)
        raise click.ClickException(f"missing: {names}; get all with: pip install sampan")


def examine(
    needs: tuple[Need, ...],
    version: Callable[[str], str] = metadata.version,
    which: Callable[[str], str | None] = shutil.which,
) -> list[Finding]:
    """Look every need up."""
    findings = []
    for need in needs:
        try:
            found = (which(need.name) or "") if need.program else version(need.name)
        except metadata.PackageNotFoundError:
            found = ""
        findings.append(Finding(need.name, need.verbs, found, "" if found else need.remedy, need.optional))
    return findings


def _machine() -> dict[str, object]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"python": platform.python_version(), "machine": platform.machine(), "cores": cores, "prefix": sys.prefix}


def _store_state(location: str) -> str:
    folder = Path(location)
    if "://" in location:
        return location
    if folder.is_dir():
        return f"{folder} ({'writable' if os.access(folder, os.W_OK) else 'read-only'})"
    return f"{folder} (not there yet; 'sampan add' makes it)"


def _print(findings: list[Finding], place: str) -> None:
    machine = _machine()
    rows = [
        (
            finding.name,
            finding.found or ("missing" if not finding.optional else "missing (optional)"),
            finding.verbs,
            finding.remedy,
        )
        for finding in findings
    ]
    print_table(("what", "found", "for", "how to get it"), rows)
    click.echo(f"Python {machine['python']} on {machine['machine']}, {machine['cores']} cores. Store: {place}")
