"""The parts of the proof, in the order in which they run."""

from __future__ import annotations

from importlib import import_module

from tests.crash.prove.part import Part

MODULES = (
    "tests.crash.power.part",
    "tests.crash.faults.part",
    "tests.crash.damage.part",
    "tests.crash.model.part",
    "tests.crash.pull.part",
    "tests.crash.planted.part",
)
"""Each has `PARTS`."""


def parts() -> dict[str, Part]:
    """By name."""
    return {part.name: part for module in MODULES for part in import_module(module).PARTS}
