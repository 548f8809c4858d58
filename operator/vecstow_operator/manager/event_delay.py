"""Which transitions become events at once, and which only when they last.

A change of the spec or a restart of the engine makes a resource wait for a moment. The conditions show that
moment. An event reports it only when it lasts.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any, Final

from vecstow_operator.manager.status import Document, Transition, is_ready, not_ready, transitions
from vecstow_operator.vocabulary import EventReason

LASTING_SECONDS: Final = 30.0
"""The longest wait without an event: most starts of an engine take less."""


class EventDelay:
    """Transitions that are held back. A new process starts without any: it posts fewer events, none twice."""

    def __init__(self) -> None:
        self._held_back: dict[str, tuple[float, Transition]] = {}
        """The monotonic time since which a resource is not ready, and the event to post, by its uid."""

    def immediate(
        self, uid: str, wanted: Document, before: Mapping[str, Any], now: float
    ) -> Iterator[Transition]:
        """Yield the events to post now that the status `wanted` replaced `before`; hold the others back."""
        was_held_back = uid in self._held_back
        for transition in transitions(wanted, before):
            if transition.passes:
                self._held_back[uid] = now, transition
            elif transition.reason is EventReason.NOT_READY:
                self._held_back.pop(uid, None)
                yield transition
            elif transition.reason is not EventReason.READY or not was_held_back:
                yield transition
        if is_ready(wanted):
            self._held_back.pop(uid, None)
        elif uid in self._held_back:
            self._held_back[uid] = self._held_back[uid][0], not_ready(wanted)

    def overdue(self, now: float) -> Iterator[tuple[str, Transition]]:
        """Yield each event whose resource has waited for too long by now, once, with the resource's uid."""
        for uid, (since, transition) in list(self._held_back.items()):
            if now - since >= LASTING_SECONDS:
                del self._held_back[uid]
                yield uid, transition

    def forget_all_but(self, uids: Container[str]) -> None:
        """Forget resources that are gone."""
        self._held_back = {uid: event for uid, event in self._held_back.items() if uid in uids}
