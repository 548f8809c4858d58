"""What was known when the power went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.crash.ledger import Content, Ledger


@dataclass(frozen=True)
class Told:
    """What clients did, and how much of it had been answered."""

    ledgers: Sequence[Ledger]
    answered: Mapping[str, int]
    shown: Content | None = None
    """What an engine served already: nothing else is right."""
