"""How requests come: rates, curves, bursts and traces, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from sampan.contract.errors import InvalidInputError
from sampan.placement.traffic import MONTH, Traffic, parse_burst, parse_rate, read_curve, read_trace


@pytest.mark.parametrize(
    ("text", "rate"),
    [("5", 5), ("5/s", 5), ("30/min", 0.5), ("36/h", 0.01), ("864/day", 0.01), ("1e3 /day", 1000 / 86400)],
)
def test_a_rate_is_requests_a_second(text: str, rate: float):
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0", "a rate of 0 has nothing to plan for"),
        ("0/day", "nothing to plan for"),
        ("-3", "nothing to plan for"),
        ("nan", "is no rate"),
        ("5/fortnight", "'5/fortnight' is no rate; write requests a second, or 30/min"),
        ("many", "'many' is no rate"),
        ("1e9", "below a million"),
    ],
)
def test_what_is_no_rate_is_said(text: str, sentence: str):
    with pytest.raises(InvalidInputError) as failed:
        parse_rate(text)
    assert sentence in failed.value.message


def test_a_window_of_a_rate_has_its_requests():
    window = Traffic(rate=5).window(20_000)
    assert len(window.times) == pytest.approx(5 * window.seconds, rel=0.03)
    assert window.weight * window.seconds == pytest.approx(MONTH)
    assert (np.diff(window.times) >= 0).all()
    assert window.pace == 1


def test_a_fast_rate_has_a_short_window():
    window = Traffic(rate=1000).window(10_000)
    assert len(window.times) == pytest.approx(10_000, rel=0.05)
    assert window.seconds == pytest.approx(10, rel=0.01)


def test_a_curve_has_its_busiest_hour():
    weights = [0.0] * 23 + [1.0]
    traffic = Traffic(rate=0.1, curve=tuple(weights))
    window = traffic.window(20_000)
    hours = (window.times % 86400) // 3600
    assert set(hours.tolist()) == {23.0}
    assert traffic.peak == pytest.approx(2.4)
    assert len(window.times) / window.seconds == pytest.approx(0.1, rel=0.1)


def test_a_burst_comes_once_in_its_period():
    burst = parse_burst("50x10s/h")
    assert (burst.rate, burst.seconds, burst.period) == (50, 10, 3600)
    traffic = Traffic(bursts=(burst,))
    assert traffic.mean == pytest.approx(500 / 3600)
    window = traffic.window(5000)
    phases = window.times % 3600
    assert phases.max() - phases.min() <= 10
    assert len(window.times) == pytest.approx(500 * window.seconds / 3600, rel=0.1)


@pytest.mark.parametrize("text", ["50", "50x10s", "axb/h", "5x2h/h", "0x10s/h", "50x0s/h"])
def test_what_is_no_burst_is_said(text: str):
    with pytest.raises(InvalidInputError, match="burst"):
        parse_burst(text)


def test_the_same_shape_at_another_rate():
    traffic = Traffic(rate=1, bursts=(parse_burst("10x6s/min"),))
    assert traffic.mean == pytest.approx(2)
    assert traffic.at(8).mean == pytest.approx(8)
    assert traffic.at(8).peak == pytest.approx(4 * traffic.peak)


class TestFiles:
    def write(self, folder: Path, text: str) -> Path:
        file = folder / "given.csv"
        file.write_text(text)
        return file

    def test_a_curve_of_24_lines_or_one(self, tmp_path: Path):
        lines = self.write(tmp_path, "hour,weight\n" + "".join(f"{hour},{hour}\n" for hour in range(24)))
        assert read_curve(str(lines)) == tuple(map(float, range(24)))
        one = self.write(tmp_path, ",".join("3" * 24))
        assert read_curve(str(one)) == (3.0,) * 24
        assert len(read_curve("day")) == 24

    @pytest.mark.parametrize("text", ["1,2,3", "a,b", "0," * 23 + "0", "-1," * 23 + "2", "nan," * 23 + "1"])
    def test_a_curve_needs_24_weights(self, tmp_path: Path, text: str):
        with pytest.raises(InvalidInputError, match="a curve has 24 numbers"):
            read_curve(str(self.write(tmp_path, text)))

    def test_a_trace_of_seconds_or_dates(self, tmp_path: Path):
        assert read_trace(self.write(tmp_path, "time,who\n10,a\n12.5,b\n11,c\n")) == (0.0, 1.0, 2.5)
        dates = "2026-11-22T10:00:00Z\n2026-11-22T10:01:00Z\n"
        assert read_trace(self.write(tmp_path, dates)) == (0.0, 60.0)

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("", "is empty"),
            ("1\n2\nsoon\n", r"given.csv:3: 'soon' is no time"),
            ("5\n", "a trace needs two at different times"),
            ("5\n5\n", "over no time"),
        ],
    )
    def test_what_is_no_trace_is_said(self, tmp_path: Path, text: str, sentence: str):
        with pytest.raises(InvalidInputError, match=sentence):
            read_trace(self.write(tmp_path, text))

    def test_a_missing_file_and_a_binary_one(self, tmp_path: Path):
        with pytest.raises(InvalidInputError, match="cannot be read: No such file"):
            read_trace(tmp_path / "none.csv")
        (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(InvalidInputError, match="is no CSV"):
            read_curve(str(tmp_path / "bytes.csv"))

    def test_a_trace_is_as_many_requests_as_it_says(self):
        traffic = Traffic(trace=tuple(float(second) for second in range(600)))
        assert traffic.mean == pytest.approx(1)
        assert traffic.peak == pytest.approx(1)
        window = traffic.at(2.5).window(10_000)
        assert len(window.times) == pytest.approx(1500, rel=0.05)
