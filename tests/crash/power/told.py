"""The clients' knowledge when the power goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.crash.ledger import Content, Ledger


@dataclass(frozen=True)
class Told:
    """The operations of the clients, and how many of them were answered."""

    ledgers: Sequence[Ledger]
    answered: Mapping[str, int]
    shown: Content | None = None
    """The content that an engine served already: no other content is right."""
