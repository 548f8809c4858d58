"""Which transitions people hear of at once, and which only when they last.

A change of the spec, or a restart of the engine, makes a resource wait for a moment. Nobody need hear of
that, nor that it is over; its conditions say it all the while.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any, Final

from vecstow_operator.manager.status import Document, Transition, is_ready, not_ready, transitions
from vecstow_operator.vocabulary import EventReason

LASTING_SECONDS: Final = 30.0
"""How long what passes by itself may last unheard of: most starts of an engine take less."""


class EventDelay:
    """Remembers what was not told yet. A new process begins without: it tells less, never twice."""

    def __init__(self) -> None:
        self._untold: dict[str, tuple[float, Transition]] = {}
        """By the resource's uid: since when (monotonic seconds) it is not ready, and what is to be said."""

    def heard(
        self, uid: str, wanted: Document, before: Mapping[str, Any], now: float
    ) -> Iterator[Transition]:
        """Of a status that was written: what people hear now."""
        was_untold = uid in self._untold
        for transition in transitions(wanted, before):
            if transition.passes:
                self._untold[uid] = now, transition
            elif transition.reason is EventReason.NOT_READY:
                self._untold.pop(uid, None)
                yield transition
            elif transition.reason is not EventReason.READY or not was_untold:
                yield transition
        if is_ready(wanted):
            self._untold.pop(uid, None)
        elif uid in self._untold:
            self._untold[uid] = self._untold[uid][0], not_ready(wanted)

    def lasting(self, now: float) -> Iterator[tuple[str, Transition]]:
        """What lasts by now, once each, with the resource's uid."""
        for uid, (since, transition) in list(self._untold.items()):
            if now - since >= LASTING_SECONDS:
                del self._untold[uid]
                yield uid, transition

    def forget_all_but(self, uids: Container[str]) -> None:
        """The others are gone."""
        self._untold = {uid: untold for uid, untold in self._untold.items() if uid in uids}
