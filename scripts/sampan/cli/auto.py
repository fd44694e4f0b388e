"""The placement `auto` is settled before a function is packaged."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.cli.output import say

if TYPE_CHECKING:
    from sampan.contract.function import FunctionConfig
    from sampan.store.protocol import Store


def settled(project: Path, store: "Store", name: str, step: Callable[[str], None]) -> "FunctionConfig | None":
    """What function.toml says once its placement `auto` is resolved; None where it is another."""
    from sampan.packaging.context import BUILD
    from sampan.packaging.project import FILE, read_function

    function = read_function(project, name)
    if function.config.placement != "auto":
        return None
    from sampan.placement.auto import resolve_placement

    version = store.find(function.config.model)
    config, plan = resolve_placement(
        function.config, version, where=str(function.folder / FILE), built=project / BUILD / name, step=step
    )
    say(f"{name}: placement auto is {config.placement}, {plan.choice.name}: {plan.why}")
    return config
