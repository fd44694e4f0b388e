"""`sampan show`: everything the manifest says of one version."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from sampan.cli.output import json_option, print_json, print_table, size_text, transfer_bar, version_facts

if TYPE_CHECKING:
    from sampan.store import Version


@click.command(epilog="Example: sampan show resnet50@live -o json")
@click.argument("ref")
@json_option
@click.pass_obj
def command(location: str, ref: str, output: str) -> None:
    """Show one version: signature, digests, lineage, gates.

    REF is a name (its live version, else the newest), name:3 or name@alias.
    """
    from sampan.store import open_store

    store = open_store(location, transfer_bar())
    version = store.find(ref)
    aliases = store.aliases(version.manifest.name)
    here = [alias for alias, found in aliases.items() if found.version == version.manifest.version]
    facts = _facts(version, here)
    if output == "json":
        print_json(facts)
    else:
        print_table(("", facts["ref"]), _lines(facts))


def _facts(version: "Version", aliases: list[str]) -> dict[str, Any]:
    import msgspec

    manifest = version.manifest
    fields = msgspec.to_builtins(manifest)
    for key in ("schema", "inputs", "outputs", "model"):
        del fields[key]
    return {
        **version_facts(manifest),
        "model": str(version.model_path),
        "aliases": aliases,
        "signature": manifest.signature.to_json(),
        **fields,
    }


def _lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("digest", "created", "parent", "task", "licence", "labels", "safe", "report", "model"):
        if facts[key]:
            yield key, facts[key]
    yield "size", size_text(facts["size"])
    yield "aliases", ", ".join(facts["aliases"])
    for side in ("inputs", "outputs"):
        for tensor in facts["signature"][side]:
            yield side[:-1], f"{tensor['name']}  {tensor['datatype']} {tensor['shape']}"
    yield "opset", _pairs(facts["opset"])
    yield "operators", _pairs(facts["operators"])
    if facts["conversion"]:
        yield from _conversion(facts["conversion"])
    golden = facts["golden"]
    seed = "" if golden["seed"] is None else f" (seed {golden['seed']})"
    yield "golden samples", f"{golden['count']} {golden['source']}{seed}"
    for gate in facts["gates"]:
        few = "" if gate["certified"] is not False else ", too few or generated: not certified"
        yield "gate", f"{gate['gate']}  measured {gate['value']:g} on {gate['samples']} samples{few}"
    for key in ("recipe", "pipeline", "needs"):
        if facts[key] and any(facts[key].values()):
            yield key, _pairs({name: value for name, value in facts[key].items() if value})
    for path, entry in facts["files"].items():
        yield "file", f"{path}  {size_text(entry['size'])}  sha256:{entry['sha256'][:12]}"


def _conversion(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "converted from", f"{facts['source']} ({facts['format']}) by {facts['exporter']}"
    for entry in facts["differences"]:
        worst = f"{entry['max_abs_error']:.2g}, relative {entry['relative_error']:.2g}"
        yield "difference", f"{entry['output']}  at most {worst} on {facts['samples']} samples"


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
