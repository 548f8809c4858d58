"""A client that does one thing after another, and records each answer in its ledger."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.crash import ledger
from tests.crash.faults.faulty_engine import Hangs
from tests.crash.ledger import Answer, Ledger, Operation, Points, World
from tests.crash.rest import Refused, Rest
from tests.waiting import SECONDS_MAX

DIMENSION = 4
IDS = 24
"""Number of ids of one client in one collection."""
DROPPED_LATE = "is dropped, but its folder could not be moved away yet"
"""The server's message for a drop that it completes by itself."""


@dataclass(frozen=True)
class PurgeAllBut:
    """Remove what was dropped, but for some."""

    spared: frozenset[str]

    def after(self, world: World) -> World:
        dropped = {name: points for name, points in world.dropped.items() if name in self.spared}
        return replace(world, dropped=dropped)


@dataclass(frozen=True)
class PurgeOne:
    """Remove what was dropped as `kept`."""

    kept: str

    def after(self, world: World) -> World:
        dropped = {name: points for name, points in world.dropped.items() if name != self.kept}
        return replace(world, dropped=dropped)


class Gone(Exception):
    """Raised when the server ended before it answered."""


@dataclass(frozen=True)
class Told:
    """One refusal."""

    operation: Operation | None
    status: int
    kind: str
    message: str

    def __str__(self) -> str:
        what = type(self.operation).__name__.lower()
        return f"{what} of {getattr(self.operation, 'collection', 'all')} was answered {self.message}"


class Writer:
    """One client with one connection at a time; `seed` decides what it writes."""

    def __init__(self, client: str, seed: int, owned: Iterable[str] = (), shared: Iterable[str] = ()) -> None:
        self.ledger = Ledger(client, owned, shared)
        self.told: list[Told] = []
        self.late: set[str] = set()
        """Collections that are dropped, but not in `.deleted/` yet: the server goes on with it."""
        self._rng = np.random.default_rng([seed, ord(client)])
        self._rest: Rest | None = None

    @property
    def rest(self) -> Rest:
        """The connection."""
        assert self._rest is not None
        return self._rest

    def connect(self, port: int) -> None:
        """To a server that was started again."""
        self.disconnect()
        self._rest = Rest(port, SECONDS_MAX)

    def disconnect(self) -> None:
        """Give up the connection."""
        if self._rest is not None:
            self._rest.close()
            self._rest = None

    def ids(self) -> list[str]:
        """All that it ever uses in one collection."""
        return [f"{self.ledger.client}/{number}" for number in range(IDS)]

    # What it does -------------------------------------------------------------------------------------------

    def create(self, name: str) -> bool:
        return self._do(ledger.Create(name), lambda: self.rest.create(name, DIMENSION))

    def fill(self, name: str, ids: list[str]) -> bool:
        """Store these ids again by one batch."""
        points = self.points(ids)
        return self._do(ledger.Put(name, points), lambda: self.rest.put_many(name, points))

    def put(self, name: str, count: int) -> bool:
        """Store so many points by one batch, some of them again."""
        return self.fill(name, self._choice(count))

    def put_one(self, name: str) -> bool:
        """Store one point under its path."""
        points = self.points(self._choice(1))
        [(point_id, point)] = points.items()
        return self._do(ledger.Put(name, points), lambda: self.rest.put(name, point_id, point))

    def delete(self, name: str, count: int) -> bool:
        ids = self._choice(count)
        return self._do(ledger.Delete(name, tuple(ids)), lambda: self.rest.delete_many(name, ids))

    def lead(self, alias: str, name: str) -> bool:
        """Let an alias lead to a collection."""
        body = {"collection": name}
        return self._do(ledger.Lead(alias, name), lambda: self.rest.call("PUT", f"/aliases/{alias}", body))

    def drop(self, name: str) -> bool:
        drop = ledger.Drop(name, kept=name)
        return self._do(drop, lambda: self.rest.call("DELETE", f"/collections/{name}"))

    def hard_delete(self, name: str) -> bool:
        """A drop and a purge: a crash may come between them."""
        path = f"/collections/{name}/hard-delete"
        return self._do(
            ledger.Drop(name, kept=name), lambda: self.rest.call("DELETE", path), also=PurgeOne(name)
        )

    def backup(self, name: str) -> str | None:
        """Returns the path of the backup."""
        found: list[str] = []
        path = f"/collections/{name}/backup"
        kept = ledger.Backup(name, kept=f"backup of {name}")
        self._do(kept, lambda: found.append(self.rest.call("POST", path)["backup_path"]))
        return found[0] if found else None

    def restore(self, kept: str, path: str, name: str) -> bool:
        """Bring back what the ledger calls `kept`."""
        body = {"backup_path": path, "new_name": name}
        operation = ledger.Restore(kept, name)
        return self._do(operation, lambda: self.rest.call("POST", "/collections/restore", body))

    def purge(self) -> bool:
        body = {"retention_hours": 0}
        purge = PurgeAllBut(frozenset(self.late))
        done = self._do(purge, lambda: self.rest.call("POST", "/collections/cleanup", body))
        for name in self.late:
            self.ledger.add(PurgeOne(name), Answer.UNKNOWN)
        return done

    def refresh(self) -> None:
        """Let the server look at the manifests, and finish what an error put off."""
        self.rest.call("POST", "/state/refresh")
        self.late.clear()

    def take_in(self, name: str, path: str, points: Points) -> bool:
        """Import an orphaned folder that holds these points."""
        shape = {"dimension": DIMENSION, "distance_metric": "Euclidean", "vector_type": "Float32"}
        body = {"orphaned_path": path, "collection_name": name} | shape
        operation = ledger.Create(name, points)
        return self._do(operation, lambda: self.rest.call("POST", "/collections/import", body))

    def check(self, name: str) -> bool:
        """Have the server verify a collection, and make a checkpoint for it."""
        return self._do(None, lambda: self.rest.call("POST", f"/collections/{name}/check"))

    def compact(self, name: str) -> bool:
        """Which makes checkpoints too."""
        return self._do(None, lambda: self.rest.call("POST", f"/collections/{name}/compact"))

    # What it knows ------------------------------------------------------------------------------------------

    def served(self) -> list[str]:
        """The names of all collections."""
        return list(self._ask("/collections"))

    def trash(self) -> dict[str, str]:
        """Return the path of each dropped collection by its name, newest first."""
        return {row["name"]: row["path"] for row in reversed(self._ask("/collections/deleted"))}

    def points(self, ids: list[str]) -> Points:
        """New content: whole numbers, so that no two points have one vector."""
        vectors = self._rng.integers(-(1 << 20), 1 << 20, (len(ids), DIMENSION)).astype("<f4")
        versions = self._rng.integers(1 << 30, size=len(ids)).tolist()
        return {
            point_id: (row.tobytes(), {"version": version} if version % 8 else None)
            for point_id, row, version in zip(ids, vectors, versions, strict=True)
        }

    # Inside -------------------------------------------------------------------------------------------------

    def _choice(self, count: int) -> list[str]:
        chosen: list[str] = self._rng.choice(self.ids(), count, replace=False).tolist()
        return chosen

    def _ask(self, path: str) -> list[Any]:
        """Return the rows of a list; none when the request is refused, which is recorded."""
        found: list[Any] = []
        self._do(None, lambda: found.extend(self.rest.call("GET", path)))
        return found

    def _do(
        self,
        operation: Operation | None,
        request: Callable[[], object],
        also: PurgeOne | None = None,
    ) -> bool:
        """One request, which does `operation` and then `also`; whether it was acknowledged."""
        answer = answer_of_also = Answer.UNKNOWN
        try:
            _answered(request)
            answer = answer_of_also = Answer.YES
        except Refused as refused:
            self.told.append(Told(operation, refused.status, refused.kind, str(refused)))
            answer = answer_of_also = answer_of(refused, operation)
            if DROPPED_LATE in str(refused):
                assert isinstance(operation, ledger.Drop)
                self.late.add(operation.collection)
                answer, answer_of_also = Answer.YES, Answer.NO
        finally:
            steps: tuple[tuple[Operation | None, Answer], ...] = ((operation, answer), (also, answer_of_also))
            for done, told in steps:
                if done is not None:
                    self.ledger.add(done, told)
        return answer is Answer.YES


def _answered(request: Callable[[], object]) -> None:
    """Raises Hangs or Gone when no answer comes."""
    try:
        request()
    except TimeoutError as error:
        raise Hangs(f"no answer in {SECONDS_MAX:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise Gone from error


def answer_of(refused: Refused, operation: Operation | None) -> Answer:
    """Return the effect of a refused write: nothing was changed, or the outcome is unknown.

    An operation of several steps on disk may fail between two, unless its error says that nothing was
    changed.
    """
    if refused.kind == "OutcomeUnknown":
        return Answer.UNKNOWN
    if refused.status != 500 or isinstance(operation, ledger.Put | ledger.Delete):
        return Answer.NO
    return Answer.NO if "nothing was changed" in str(refused) else Answer.UNKNOWN
