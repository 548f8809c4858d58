"""The parts of the proof, in the order in which they run."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

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
    modules = [import_module(module) for module in MODULES if _exists(module)]
    return {part.name: part for module in modules for part in module.PARTS}


def _exists(module: str) -> bool:
    package = module.rpartition(".")[0]
    return find_spec(package) is not None and find_spec(module) is not None
