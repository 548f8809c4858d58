"""A figure: one number measured several times, its target and, where that makes sense, hnswlib's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


class BenchmarkFailed(Exception):
    """Raised when what is measured went wrong, so that no figure would mean anything."""


@dataclass(frozen=True, slots=True)
class Target:
    """The goal of a figure: for the value itself or for its ratio to hnswlib."""

    at_least: float | None = None
    at_most: float | None = None
    of_ratio: bool = False

    def met(self, value: float) -> bool:
        """Whether `value` reaches it."""
        if self.at_least is not None and value < self.at_least:
            return False
        return self.at_most is None or value <= self.at_most

    def __str__(self) -> str:
        bound = f"≥ {self.at_least:,g}" if self.at_least is not None else f"≤ {self.at_most:,g}"
        return f"ratio {bound}" if self.of_ratio else bound


@dataclass(frozen=True, slots=True)
class Figure:
    """`values` in `unit`, one per run; `beside`: the reference, in the same runs and the same unit."""

    benchmark: str
    name: str
    unit: str
    values: Sequence[float]
    beside: Sequence[float] = ()
    beside_name: str = "hnswlib"
    target: Target | None = None
    note: str = ""

    @property
    def median(self) -> float:
        """The middle of all runs."""
        return median(self.values)

    @property
    def ratios(self) -> list[float]:
        """Return the ratio of each run: both figures are of that run, so a slow machine cancels out."""
        return [value / other for value, other in zip(self.values, self.beside, strict=False) if other]

    @property
    def met(self) -> bool | None:
        """Whether the target is reached by the median; None without a target."""
        if self.target is None:
            return None
        return self.target.met(median(self.ratios) if self.target.of_ratio else self.median)

    def document(self) -> dict[str, Any]:
        """As it stands in the JSON file."""
        found: dict[str, Any] = {
            "benchmark": self.benchmark, "figure": self.name, "unit": self.unit, **summary(self.values),
        }  # fmt: skip
        if self.beside:
            found["beside"] = {"name": self.beside_name, **summary(self.beside)}
            found["ratio"] = summary(self.ratios)
        if self.target is not None:
            found["target"] = {"text": str(self.target), "met": self.met}
        if self.note:
            found["note"] = self.note
        return found


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, extremes and every run."""
    rounded = [float(f"{value:.5g}") for value in values]
    return {
        "median": float(f"{median(values):.5g}"), "min": min(rounded), "max": max(rounded), "runs": rounded,
    }  # fmt: skip


def spelt(value: float) -> str:
    """A number with about three digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@dataclass(slots=True)
class Series:
    """Collects the values of several figures run by run."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **named: float) -> None:
        """One run's values."""
        for name, value in named.items():
            self.values.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> list[float]:
        return self.values[name]
