"""The report: Pareto front, error distributions, and the page that tells of them."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import click
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure

from sampan.cli.compress import write
from sampan.cli.typed import typed
from sampan.compress import page
from sampan.compress.distribution import distributions
from sampan.compress.front import front, gate_margin, margin, staircase
from sampan.compress.page import labels, layers, template, words
from sampan.compress.page.style import LIGHT, ROLES
from sampan.compress.report import Candidate, Report, Sensitivity, Source, encode_report
from sampan.compress.tasks import Latency
from sampan.contract.manifest import GateEntry

GATE = "cosine>=0.99"
PNG = b"\x89PNG\r\n\x1a\n"


def entry(value, gate=GATE, passed=None):
    return GateEntry(
        gate=gate, value=value, standard_error=1e-4, samples=32, passed=value >= 0.99 if passed is None else passed
    )


def candidate(name, size=0.5, ratio=1.0, value=0.999, **more):
    latency = Latency(ratio=ratio, low=ratio - 0.02, high=ratio + 0.02, source_ms=2.0, candidate_ms=2 * ratio, rounds=9)
    measured = {"size": int(size * 1e6), "size_ratio": size, "load_ms": 30.0, "peak_bytes": 60_000_000}
    return Candidate(
        recipe=name, latency=latency, cost_ratio=ratio, gates=[entry(value)], holds=value >= 0.99, **measured, **more
    )


def report(candidates=(), **more):
    source = Source(ref="m:1", digest="sha256:" + "0" * 64, size=1_000_000, load_ms=40.0, peak_bytes=80_000_000)
    facts = {"machine": {"cpu": "a <cpu>"}, "objective": "size", "samples": 32, "samples_source": "given", "seed": 0}
    return Report(
        **{
            **facts,
            "source": msgspec.structs.replace(source, operators={"MatMul": 2, "Identity": 3}),
            "gates": [GATE],
            "candidates": list(candidates),
            "winner": candidates[0].recipe if candidates else None,
            "why": "because",
            **more,
        }
    )


def outputs(count=4, **arrays):
    return [{name: np.asarray(array) for name, array in arrays.items()} for _ in range(count)]


class Reader(HTMLParser):
    """Tags that are not closed, attributes that load something, and the text."""

    VOID = ("meta", "link", "img", "br", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.text, self.tags = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "xlink:href", "action", "data")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def read(folder: Path) -> Reader:
    return Reader((folder / "report.html").read_text())


def words_of(reader: Reader) -> str:
    return " ".join(" ".join(reader.text).split())


def test_the_front_keeps_what_no_other_beats():
    candidates = [
        candidate("small", 0.25, 1.0),
        candidate("fast", 0.60, 0.5),
        candidate("exact", 0.60, 1.0, value=1.0),
        candidate("beaten", 0.61, 1.1),
        Candidate(recipe="crashed", error="it crashed"),
    ]
    assert front(candidates) == ["small", "fast", "exact"]


def test_noise_puts_nothing_on_the_front():
    assert front([candidate("a", 0.25, 1.001), candidate("b", 0.27, 0.998)]) == ["a"]


def test_equals_are_both_on_the_front():
    assert front([candidate("a"), candidate("b")]) == ["a", "b"]


def test_the_staircase_descends():
    assert staircase([(1, 1), (0.5, 2), (0.5, 1.5), (2, 0.5), (3, 0.7)]) == [(0.5, 1.5), (1, 1), (2, 0.5)]


@pytest.mark.parametrize(
    ("gate", "value", "left"),
    [
        ("cosine>=0.99", 0.995, 0.5),
        ("cosine>=0.99", 1.0, 1.0),
        ("cosine>=0.99", 0.98, -1.0),
        ("max_abs_error<=0.04", 0.01, 0.75),
        ("max_abs_error<=0", 0.5, -0.5),
        ("top1_agreement>=1", 1.0, 0.0),
        ("cosine>=0.99", float("nan"), float("-inf")),
    ],
)
def test_margin_is_the_share_of_the_allowed_loss_that_is_left(gate, value, left):
    assert gate_margin(entry(value, gate)) == pytest.approx(left)


def test_the_tightest_gate_is_the_margin():
    both = msgspec.structs.replace(candidate("a"), gates=[entry(1.0), entry(0.9925)])
    assert margin(both) == pytest.approx(0.25)
    assert margin(Candidate(recipe="crashed")) is None


def test_a_distribution_is_relative_to_the_outputs_own_size():
    truth = outputs(y=np.full(100, 200.0, np.float32), n=[1, 2])
    answers = outputs(y=np.full(100, 202.0, np.float32), n=[1, 3])
    (found,) = distributions(truth, answers)
    assert (found.output, sum(found.counts)) == ("y", 400)
    assert (found.p50, found.worst) == (pytest.approx(0.01, rel=1e-4), pytest.approx(0.01, rel=1e-4))
    place = found.counts.index(400)
    assert found.edges[place] <= -2 <= found.edges[place + 1]
    assert len(found.edges) == len(found.counts) + 1


def test_equal_values_stand_in_the_first_bin():
    (found,) = distributions(outputs(y=[1.0, 0.0]), outputs(y=[1.0, 0.0]))
    assert (found.counts[0], found.worst) == (8, 0.0)


@pytest.mark.parametrize("answer", [[np.nan, 1.0], [np.inf, 1.0], [1.0]])
def test_what_cannot_be_compared_is_infinitely_far_off(answer):
    (found,) = distributions(outputs(y=[1.0, 1.0]), outputs(y=answer))
    assert found.counts[-1] >= 4
    assert found.worst == np.inf


def test_where_the_truth_is_not_finite_nothing_is_compared():
    (found,) = distributions(outputs(y=[np.nan, 1.0]), outputs(y=[5.0, 1.0]))
    assert (sum(found.counts), found.worst) == (4, 0.0)


def test_a_zero_truth_is_its_own_unit():
    (found,) = distributions(outputs(y=[0.0]), outputs(y=[0.5]))
    assert found.worst == 0.5


@pytest.fixture
def full() -> Report:
    """A report with everything in it."""
    errors = distributions(outputs(y=np.linspace(1, 2, 50)), outputs(y=np.linspace(1.01, 2.01, 50)))
    winner = candidate(
        "int8",
        0.25,
        0.9,
        passes=[{"name": "simplify", "operators": {"MatMul": 2}}, {"name": "int8", "stored": 2}],
        operators={"MatMul": 2, "DequantizeLinear": 2},
        layers={"/a/MatMul": "int8-weights", "/b/MatMul": "float32"},
        errors=errors,
        guard={"safe": "any x86-64", "gates": [{"gate": GATE, "passed": True}]},
    )
    other = candidate("int4", 0.2, 0.8, value=0.9)
    crashed = Candidate(recipe="simplify", error="pass simplify crashed", verdict="pass simplify crashed")
    sensitivity = [
        Sensitivity(layer=layer, operator="MatMul", parameters=9, precision=precision, error=error)
        for layer in ("/a/MatMul", "/b/MatMul")
        for precision, error in (("int8-weights", 1e-3), ("int4", 0.0))
    ]
    return report([winner, other, crashed], sensitivity=sensitivity, front=["int8", "int4"], stopped="all were tried")


def test_the_page_stands_alone(tmp_path, full):
    files = page.write_report(full, tmp_path, ref="m:2", command="sampan compress m")
    assert sorted(file.name for file in files) == sorted(file.name for file in tmp_path.iterdir())
    assert [file.name for file in files] == [
        "report.html",
        "pareto.png",
        "accuracy.png",
        "sensitivity.png",
        "errors.png",
    ]
    assert all(file.read_bytes().startswith(PNG) for file in files[1:])
    reader, text = read(tmp_path), files[0].read_text()
    assert reader.open == []
    assert [target for target in reader.loads if not target.startswith("#")] == []
    assert not re.search(r"@import|url\((?!#)", text)
    assert reader.tags.count("svg") == 4


def test_the_page_says_what_was_measured(tmp_path, full):
    page.write_report(full, tmp_path, ref="m:2", command="sampan compress m")
    said = words_of(read(tmp_path))
    for phrase in (
        "m:1 → m:2",
        "registered because.",
        "0.25× 1.00 MB → 250.0 kB, 4 times smaller",
        "0.90× 0.88 to 0.92 (95 %), 2 ms → 1.8 ms",
        "pass simplify crashed",
        "any x86-64",
        "Identity 3 0 -3",
        "DequantizeLinear 0 2 +2",
        "int8-weights 1",
        "all were tried",
        "sampan compress m",
    ):
        assert phrase in said


def test_a_name_is_text_and_no_markup(tmp_path):
    name = "<script>alert('$x^2$')</script>"
    page.write_report(report([candidate(name)], warnings=["<b>bold</b>"]), tmp_path)
    reader = read(tmp_path)
    assert reader.tags.count("script") == 1
    assert "b" not in reader.tags
    assert name in words_of(reader)


def test_the_page_of_a_run_where_nothing_held(tmp_path):
    page.write_report(report([candidate("int8", value=0.9)], winner=None, why="no candidate holds"), tmp_path)
    said = words_of(read(tmp_path))
    assert "nothing registered no candidate holds." in said
    assert "are of int8, which came nearest" in said


def test_the_page_looks_closely_at_what_came_nearest(tmp_path):
    candidates = [candidate("larger", 1.4), candidate("far", 0.2, value=0.5), candidate("near", 0.3, value=0.98)]
    page.write_report(report(candidates, winner=None), tmp_path)
    assert "are of near, which came nearest" in words_of(read(tmp_path))


@pytest.mark.parametrize(("certified", "said"), [(True, "certified"), (False, "uncertified")])
def test_the_page_says_whether_the_samples_tell(tmp_path, certified, said):
    told = msgspec.structs.replace(entry(0.999), certified=certified)
    page.write_report(report([msgspec.structs.replace(candidate("int8"), gates=[told])]), tmp_path)
    assert f"holds {said} " in words_of(read(tmp_path))


@pytest.mark.parametrize("candidates", [[], [Candidate(recipe="simplify", error="it crashed", verdict="it crashed")]])
def test_the_page_of_a_run_that_measured_nothing(tmp_path, candidates):
    files = page.write_report(report(candidates, winner=None), tmp_path)
    assert [file.name for file in files] == ["report.html"]
    assert ("it crashed" in words_of(read(tmp_path))) == bool(candidates)


@pytest.mark.parametrize(
    "odd",
    [
        candidate("nan", value=float("nan")),
        candidate("slow", ratio=40.0),
        candidate("perfect", value=1.0),
        candidate("表", value=0.2),
        msgspec.structs.replace(candidate("free"), gates=[entry(41.0, "cosine>=37", True)]),
    ],
)
def test_odd_figures_are_drawn(tmp_path, odd):
    files = page.write_report(report([candidate("int8"), odd]), tmp_path)
    assert len(files) == 3


def test_the_same_report_gives_the_same_bytes(tmp_path, full):
    both = [tmp_path / "a", tmp_path / "b"]
    for folder in both:
        folder.mkdir()
        page.write_report(full, folder)
    first, second = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in both)
    assert first == second


def test_light_and_dark_have_the_same_colours():
    assert list(template.DARK) == ROLES


def test_names_do_not_lie_on_each_other():
    figure = Figure(figsize=(5.6, 3.9), dpi=72)
    axes = figure.add_axes((0.1, 0.1, 0.85, 0.85))
    points = [(x / 6, y / 4) for x in range(1, 6) for y in range(1, 4)]
    chosen = [labels.Label(f"recipe-{x:.2f}-{y:.2f}", x, y, LIGHT.ink, bold=x == points[0][0]) for x, y in points]
    labels.place(axes, chosen, points, LIGHT.paper)
    figure.canvas.draw()
    for text in axes.texts:
        text.arrowprops = text.arrow_patch = None  # the line to a point may pass below another name
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) > 10
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_the_most_sensitive_layers_come_first():
    many = [
        Sensitivity(layer=f"l{index}", operator="MatMul", parameters=1, precision="int8-weights", error=index / 100)
        for index in range(layers.MOST + 5)
    ]
    winner = candidate("int8", layers={"l34": "int8-weights"})
    rows = layers.rows(report([winner], sensitivity=many))
    assert [row.name for row in rows[:2]] == ["l34", "l33"]
    assert (len(rows), rows[0].given, rows[1].given) == (layers.MOST, "int8-weights", "")


def test_a_ratio_in_words():
    told = [words.times_less(ratio, "smaller", "larger", "the same") for ratio in (0.25, 1.001, 2.0)]
    assert told == ["4 times smaller", "the same", "2 times larger"]


def test_without_the_packages_the_report_is_written_and_one_sentence_says_how(tmp_path, full, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    write(full, "m:2", tmp_path, "")
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]
    assert (tmp_path / "report.json").read_bytes() == encode_report(full)
    assert capsys.readouterr().err == "the page needs jinja2: pip install 'sampan[report]'\n"


def test_the_command_is_said_as_it_was_typed():
    @click.group()
    @click.option("--store", default="x")
    def top(store):
        pass

    @top.command()
    @click.argument("ref")
    @click.option("--gate", multiple=True)
    @click.option("--fast", is_flag=True)
    @click.option("--pair", nargs=2)
    @click.option("--seed", default=0)
    @click.pass_context
    def verb(context, ref, gate, fast, pair, seed):
        click.echo(typed(context))

    line = ["--store", "a b", "verb", "m:1", "--gate", "cosine>=0.9", "--gate", "iou>=1", "--fast", "--pair", "A", "B"]
    said = CliRunner().invoke(top, line).output.strip()
    assert said == "sampan --store 'a b' verb m:1 --gate 'cosine>=0.9' --gate 'iou>=1' --fast --pair A B"
