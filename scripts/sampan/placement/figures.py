"""A number, and where it is from: no guess passes for a measurement."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Origin = Literal["measured here", "measured in the package", "given", "scaled", "assumed", "documented"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A value in a unit, its origin, and a few words on how it came about."""

    value: float
    unit: str
    origin: Origin
    how: str = ""

    def times(self, factor: float, words: str) -> "Figure":
        """Scaled by a stated factor; a factor of 1 changes nothing."""
        if factor == 1:
            return self
        return Figure(self.value * factor, self.unit, "scaled", f"{words}; {self.said}")

    @property
    def said(self) -> str:
        """`measured here (32 samples, one thread)`."""
        return f"{self.origin} ({self.how})" if self.how else self.origin

    @property
    def text(self) -> str:
        return f"{amount(self.value)} {self.unit}".strip()


def amount(value: float) -> str:
    """Three significant digits, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def as_dict(figures: Mapping[str, Figure]) -> dict[str, dict[str, Any]]:
    """For JSON."""
    return {
        name: {"value": figure.value, "unit": figure.unit, "origin": figure.origin, "how": figure.how}
        for name, figure in figures.items()
    }
