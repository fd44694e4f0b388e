"""The report as a page: one HTML file that needs nothing else, and its plots as PNG files beside it.

    Report → plots (SVG in the page's colours, PNG) → view (figures and words) → template → report.html

`write_report` and `write_comparison` are the doors. jinja2 and matplotlib are imported when these are called;
`missing` says whether they are there.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.compress.compare import Comparison
    from sampan.compress.page.style import Plot
    from sampan.compress.report import Report

REPORT_PAGE = "report.html"
COMPARE_PAGE = "compare.html"
NEEDS = ("jinja2", "matplotlib")


def missing() -> str:
    """Why no page can be made, in one sentence with the remedy; empty when it can."""
    absent = [name for name in NEEDS if find_spec(name) is None]
    return f"the page needs {' and '.join(absent)}: pip install 'sampan[report]'" if absent else ""


def write_report(report: "Report", folder: Path, *, ref: str | None = None, command: str = "") -> list[Path]:
    """Write `report.html` and its plots into a folder that exists; gives the files, the page first.

    Args:
        ref: the version that was registered; None when none was.
        command: what to type to do it again; shown as it is.
    """
    from sampan.compress.page import plots, template, view

    drawn = plots.of_report(report)
    page = template.render("report.html", view.of_report(report, ref, command), drawn)
    return _write(folder, REPORT_PAGE, page, drawn)


def write_comparison(comparison: "Comparison", folder: Path, *, command: str = "") -> list[Path]:
    """Write `compare.html` and its plots into a folder that exists; gives the files, the page first."""
    from sampan.compress.page import plots, template, view_comparison

    drawn = plots.of_comparison(comparison)
    page = template.render("compare.html", view_comparison.of_comparison(comparison, command), drawn)
    return _write(folder, COMPARE_PAGE, page, drawn)


def replace_file(path: Path, data: bytes) -> Path:
    """Write a file in one step: a reader sees all of it, or what was there before."""
    sibling = path.with_name(f".{path.name}.{os.getpid()}")
    sibling.write_bytes(data)
    return sibling.replace(path)


def _write(folder: Path, name: str, page: str, drawn: "list[Plot]") -> list[Path]:
    files = {name: page.encode(), **{f"{plot.name}.png": plot.png for plot in drawn}}
    return [replace_file(folder / file, data) for file, data in files.items()]
