"""The behaviour of a running server after an error: its reports, its points, and the writes that it takes."""

from __future__ import annotations

import re
import time
from typing import Any

from tests.crash import ledger
from tests.crash.faults.control import SYNCS, Call, Kind
from tests.crash.faults.injections import Injection
from tests.crash.faults.inspection import Inspection
from tests.crash.faults.lives import Lives
from tests.crash.faults.writer import Told
from tests.crash.rest import Rest
from tests.waiting import SECONDS_MAX

_SERVED_FILE = re.compile(
    r"wal/(?P<uid>[0-9a-f]{32})/\d{20}\.log|(?P<name>\w+)/(vectors\.bin|points\.db(-wal)?)"
)
NEVER = "never came about"
_SAID_BY_SQLITE = ("disk I/O error", "unable to open", "readonly database")
_SAID_OF = {
    "EIO": ("Input/output error", *_SAID_BY_SQLITE),
    "ENOSPC": ("full", "No space left", *_SAID_BY_SQLITE),
    "full": ("full", "No space left"),
    "EMFILE": ("Too many open files", *_SAID_BY_SQLITE),
    "EINTR": ("Interrupted system call", *_SAID_BY_SQLITE),
}
"""How an error is named, by the system and by SQLite, which does not tell the system's name."""
_FOLLOWS = frozenset({"NotFound", "Conflict", "ReadOnly"})
"""Refusals for what an earlier error left undone."""


class Aftermath:
    """Watches one round. `look` is called after each step."""

    def __init__(self, life: Lives, injection: Injection) -> None:
        self._life = life
        self._injection = injection
        self._rows: dict[str, dict[str, Any]] | None = None
        """State by name when the error had just befallen."""
        self.kind = NEVER
        """In which way the server met it."""

    def look(self) -> None:
        """Note the states after the step in which the error came."""
        if self._rows is None and self._life.control.fired:
            self._rows = self._states()

    def problems(self) -> list[str]:
        """List what is wrong once the error has passed, while its server still runs."""
        told = self._life.told()
        self._life.workload.main.refresh()
        found = self._settled()
        doubtful = any(one.kind == "OutcomeUnknown" for one in told)  # until a restart
        excused = {name for name in found.states if self._is_excused(found, name)}
        found.excuse(excused, self._life.workload)
        read_only = {name for name, state in found.states.items() if state == "read_only"}
        self.kind = self._classified(told, read_only)
        return [
            *self._unnamed(told),
            *self._neighbours(told),
            *found.problems(self._life.workload, doubtful=doubtful),
            *(f"{name} is {state}: {found.reasons[name]}" for name, state in found.states.items()
              if state not in ("ready", "read_only") and name not in excused),
            *self._writes(found),
            *self._not_told(read_only, found.reasons),
            *self._went_on(),
        ]  # fmt: skip

    def kill(self) -> None:
        """SIGKILL, before anything is written over what the error left."""
        self.kind = "killed after it"
        self._life.victims = self._victims()
        self._life.end()

    def end(self) -> list[str]:
        """SIGTERM; an error that did not come in the round may come now."""
        code = self._life.engine.stop()
        if self._life.control.fired and self.kind is NEVER:
            self.kind = "met at the end"
        self._life.victims = self._victims()
        return [] if code == 0 else [f"SIGTERM ended it with {code}"]

    def _victims(self) -> list[Call]:
        victim = self._life.control.victim
        return [] if victim is None else [victim]

    def _settled(self) -> Inspection:
        """Inspect the server once every collection is open that waited for the end of the error."""
        deadline = time.monotonic() + SECONDS_MAX
        while True:
            found = self._life.inspection()
            if "recovering" not in found.states.values() or time.monotonic() > deadline:
                return found
            time.sleep(0.2)

    def _is_excused(self, found: Inspection, name: str) -> bool:
        """A disk that fails while a collection is opened keeps it closed, and that is what it says."""
        if found.states[name] != "quarantined" or self._injection.how != "EIO":
            return False
        return any(said in (found.reasons[name] or "") for said in _SAID_OF["EIO"])

    def _classified(self, told: list[Told], read_only: set[str]) -> str:
        if read_only:
            return "read-only until a restart"
        return "refused" if told else "not noticed by clients"

    def _unnamed(self, told: list[Told]) -> list[str]:
        """Refusals that do not say what happened."""
        bare = [f"an error without a name: {one}" for one in told if one.kind in ("", "VecstowError")]
        if told and self._injection.is_invisible:
            return [*bare, f"the client sees it: {told[0]}"]
        names = _SAID_OF.get(self._injection.how, ())
        if (victim := self._life.control.victim) is not None and victim.path.endswith("-shm"):
            names += _SAID_BY_SQLITE  # the engine asks the file system for its room, and finds some here
        if told and not any(name in one.message for one in told for name in names):
            bare.append(f"no answer names {self._injection.how}: {told[0]}")
        return bare

    def _neighbours(self, told: list[Told]) -> list[str]:
        """An error that comes once stops no writes but those of the collection that it hit."""
        victim = self._victim_name()
        if self._injection.sticky or self._injection.is_no_room or victim is None:
            return []
        return [
            f"a neighbour of {victim} suffers: {one}"
            for one in told
            if isinstance(one.operation, ledger.Put | ledger.Delete)
            and one.operation.collection != victim
            and one.kind not in _FOLLOWS
        ]

    def _writes(self, found: Inspection) -> list[str]:
        """List the collections that wrongly take writes, or wrongly refuse them, after the error.

        SQLite does not distinguish a failed sync from other errors.
        """
        main, wrong = self._life.workload.main, []
        excused = self._injection.is_failed_sync or self._injection.how == "EIO"
        for name, state in found.states.items():
            excused_here = excused or "disk I/O error" in (found.reasons[name] or "")
            if state == "read_only" and not excused_here:
                wrong.append(f"{name} takes no writes though no sync failed: {found.reasons[name]}")
            if state == "read_only" and main.put(name, 1):
                wrong.append(f"{name} is read-only, and takes writes")
            if state == "ready" and not self._resumes(name):
                wrong.append(f"{name} takes no writes after the error has passed: {main.told[-1]}")
        return wrong

    def _resumes(self, name: str) -> bool:
        deadline = time.monotonic() + SECONDS_MAX
        while not self._life.workload.main.put(name, 1):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _not_told(self, read_only: set[str], reasons: dict[str, str | None]) -> list[str]:
        """A collection that takes no writes says why in its description, in the log and as a metric."""
        wrong = []
        with Rest(self._life.engine.port) as rest:
            metrics = rest.text("/metrics")
        for name in read_only:
            reason = reasons[name]
            if not reason:
                wrong.append(f"{name} is read-only without a reason")
            elif not self._log_says(reason):
                wrong.append(f"{name} is read-only, and the log does not say {reason!r}")
            if f'vecstow_read_only{{collection="{name}"}} 1.0' not in metrics:
                wrong.append(f"{name} is read-only, and no metric says so")
        return wrong

    def _log_says(self, reason: str) -> bool:
        deadline = time.monotonic() + SECONDS_MAX
        while reason not in self._life.engine.log.read_text(errors="replace"):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _went_on(self) -> list[str]:
        """A file of a served collection whose sync failed: it is never synced again, and takes no writes."""
        victim = self._life.control.victim
        if victim is None or not self._injection.is_failed_sync or self._injection.how == "EINTR":
            return []
        if _SERVED_FILE.fullmatch(victim.path) is None:
            return []
        wrong = []
        name = self._victim_name()
        row = (self._rows or {}).get(name or "")
        if row is not None and row["state"] == "ready":
            wrong.append(f"{name} takes writes after a failed sync of {victim.path}")
        if self._synced_again(victim):
            wrong.append(f"{victim.path} is synced again after a failed sync")
        return wrong

    def _synced_again(self, victim: Call) -> bool:
        calls = self._life.control.calls(self._life.control.victim_number + 1)
        for call in calls:
            if call.path.endswith(victim.path) and call.kind in (Kind.RENAME, Kind.UNLINK, Kind.CREATE):
                return False  # another file has the name
            if call.path == victim.path and call.kind in SYNCS:
                return True
        return False

    def _victim_name(self) -> str | None:
        """Return the served collection whose file the fault hit; None for any other file."""
        victim = self._life.control.victim
        match = _SERVED_FILE.match(victim.path) if victim is not None else None
        if match is None:
            return None
        uids = {row.get("collection_uid"): name for name, row in (self._rows or {}).items()}
        return match["name"] or uids.get(match["uid"])

    def _states(self) -> dict[str, dict[str, Any]]:
        with Rest(self._life.engine.port) as rest:
            return {row["name"]: row for row in rest.call("GET", "/state")["collections"]}
