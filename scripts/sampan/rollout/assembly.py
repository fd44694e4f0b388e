"""What `cdk synth` wrote: templates by stack, each after those that it needs.

Source: https://docs.aws.amazon.com/cdk/v2/guide/deploy.html (cloud assembly), `manifest.json` of cdk.out
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sampan.contract.errors import StoreError

_STACK = "aws:cloudformation:stack"
_MANIFEST = "manifest.json"


def read_assembly(folder: Path) -> dict[str, dict[str, Any]]:
    """Templates by the stacks' names, in the order of a deployment.

    Raises:
        StoreError: the folder does not hold what `cdk synth` writes.
    """
    try:
        artifacts = json.loads((folder / _MANIFEST).read_bytes())["artifacts"]
        stacks = {name: artifact for name, artifact in artifacts.items() if artifact["type"] == _STACK}
        return {
            stacks[name]["properties"].get("stackName", name): json.loads(
                (folder / stacks[name]["properties"]["templateFile"]).read_bytes()
            )
            for name in _ordered(stacks)
        }
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{folder} is not what `cdk synth` writes ({error}); delete it and try again") from error


def _ordered(stacks: Mapping[str, Any]) -> Iterator[str]:
    done: set[str] = set()

    def visit(name: str) -> Iterator[str]:
        if name in stacks and name not in done:
            done.add(name)
            for needed in sorted(stacks[name].get("dependencies", ())):
                yield from visit(needed)
            yield name

    for name in stacks:
        yield from visit(name)
