"""The engines of the namespace, as the last pass saw them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vecstow_operator.manager.engines import EngineView
from vecstow_operator.manager.missing_engines import MissingEngines
from vecstow_operator.manager.state_poller import StatePoller


class EngineList:
    """Times are monotonic seconds."""

    def __init__(self, poller: StatePoller, tick_seconds: float) -> None:
        self._poller = poller
        self._missing = MissingEngines(tick_seconds)
        self.by_name: Mapping[str, EngineView] = {}

    def refresh(
        self, stateful_sets: Sequence[Any], pods: Sequence[Any], declared: Iterable[str], now: float
    ) -> None:
        """Ask every engine for its state. `declared` are the names of engines that resources refer to."""
        views = self._poller.views(stateful_sets, pods)
        # An unchanged view stays the same object, so that resources compare engines by identity.
        self.by_name = {
            name: known if (known := self.by_name.get(name)) == view else view for name, view in views.items()
        }
        self._missing.update(set(declared) - self.by_name.keys(), now)

    def view(self, name: str, now: float) -> EngineView:
        """Return the engine of that name, or a view of a missing one."""
        if name in self.by_name:
            return self.by_name[name]
        return EngineView(name, is_gone=self._missing.is_gone(name, now))

    def forget_missing(self) -> None:
        """Forget since when engines are missing: their present state is unknown."""
        self._missing.forget()

    def close(self) -> None:
        """Stop the threads that ask."""
        self._poller.close()
