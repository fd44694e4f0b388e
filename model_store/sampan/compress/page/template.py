"""The page is filled in: everything that comes from a model or a person is escaped."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sampan.compress.page.style import LIGHT, Plot
from sampan.compress.page.words import plain

DARK = {
    "ink": "#ebe8e2",
    "muted": "#98a1a9",
    "line": "#31383e",
    "paper": "#1b2024",
    "accent": "#53bdb8",
    "ample": "#53bdb8",
    "fair": "#379a94",
    "tight": "#dfa94a",
    "misses": "#e67a61",
    "series1": "#53bdb8",
    "series2": "#dfa94a",
    "series3": "#a98bdc",
    "series4": "#79aee6",
    "series5": "#dc7fa4",
    "series6": "#a9bc5c",
}


def render(name: str, view: Any, plots: Sequence[Plot]) -> str:
    """One self-contained HTML document; `view` is the template's variable of that name."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = plain
    drawn = {plot.name: {"title": plot.title, "svg": Markup(plot.svg)} for plot in plots}
    return environment.get_template(name).render(view=view, plots=drawn, light=asdict(LIGHT), dark=DARK)
