"""Journals of what clients wrote and how the server answered, and the check of later readings by them.

Each client writes ids of its own, one request after the other. So the states that an id may rightly have are
known: the last one acknowledged, or one submitted later.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from tests.crash.rest import Refused, Rest, Stored

DIMENSION = 8


@dataclass(frozen=True, slots=True)
class Shape:
    """A collection of a test, and how many ids each client uses in it."""

    name: str
    metric: str
    vector_type: str
    ids_per_client: int
    batch_max: int


class History:
    """The states of one id, oldest first; None is "not there"."""

    __slots__ = ("acknowledged", "states")

    def __init__(self) -> None:
        self.states: list[Stored | None] = [None]
        self.acknowledged = 0
        """Place in `states` of the last one that the server confirmed."""

    def allowed(self) -> list[Stored | None]:
        """Return the states that the point may have after a crash."""
        return self.states[self.acknowledged :]

    def settle(self, found: Stored | None) -> None:
        """Go on from what was found: from now on nothing else is right."""
        self.states, self.acknowledged = [found], 0


Key = tuple[str, str]
"""Collection and id."""


class Client:
    """One writer with its own ids and its journal. `seed` decides what it writes."""

    def __init__(self, number: int, shapes: list[Shape], seed: int) -> None:
        self.rng = np.random.default_rng([seed, number])
        self.shapes = shapes
        self.ids = {
            shape.name: [f"{number}/{shape.name}-{serial}" for serial in range(shape.ids_per_client)]
            for shape in shapes
        }
        self.histories = {(name, point_id): History() for name, ids in self.ids.items() for point_id in ids}
        self.unanswered: list[Key] = []
        """Ids of the request that was never answered."""
        self.answered = 0
        """Requests that were answered since the last `Writers` began."""

    def fill(self, rest: Rest) -> None:
        """Store every id of every collection, in large batches."""
        for shape in self.shapes:
            ids = self.ids[shape.name]
            for start in range(0, len(ids), 1000):
                self._put(rest, shape.name, ids[start : start + 1000])

    def write(self, port: int, stopped: Callable[[], bool], shapes: list[Shape]) -> None:
        """Write to `shapes` until `stopped()` is true, or until the server is gone."""
        try:
            with Rest(port) as rest:
                while not stopped():
                    self._step(rest, shapes)
        except (OSError, http.client.HTTPException):
            pass  # killed: the request under way stays unanswered

    def settle(self, found: Mapping[str, Mapping[str, Stored]]) -> None:
        """Check what a restarted engine has, by collection and id, and go on from it."""
        self._check_last_batch(found)
        for (name, point_id), history in self.histories.items():
            state = found[name].get(point_id)
            assert state in history.allowed(), wrong(name, point_id, state, history)
            history.settle(state)
        self.unanswered = []

    def _check_last_batch(self, found: Mapping[str, Mapping[str, Stored]]) -> None:
        """The unanswered request counts as a whole or not at all."""
        outcomes = set()
        for name, point_id in self.unanswered:
            before, after = self.histories[name, point_id].states[-2:]
            if before != after:
                outcomes.add(found[name].get(point_id) == after)
        assert len(outcomes) <= 1, f"half a batch came back: {self.unanswered}"

    def _step(self, rest: Rest, shapes: list[Shape]) -> None:
        shape = shapes[self.rng.integers(len(shapes))]
        count = int(self.rng.integers(1, shape.batch_max + 1))
        ids = self.rng.choice(self.ids[shape.name], count, replace=False).tolist()
        kind = self.rng.random()
        if kind < 0.6:
            self._put(rest, shape.name, ids)
        elif kind < 0.8:
            [point] = self.points(ids[:1]).values()
            self._do(shape.name, {ids[0]: point}, lambda: rest.put(shape.name, ids[0], point))
        else:
            self._do(shape.name, dict.fromkeys(ids), lambda: rest.delete_many(shape.name, ids))

    def _put(self, rest: Rest, name: str, ids: list[str]) -> None:
        points = self.points(ids)
        self._do(name, points, lambda: rest.put_many(name, points))

    def _do(self, name: str, states: Mapping[str, Stored | None], request: Callable[[], None]) -> None:
        self.unanswered = [(name, point_id) for point_id in states]
        histories = [self.histories[key] for key in self.unanswered]
        for history, state in zip(histories, states.values(), strict=True):
            history.states.append(state)
        try:
            request()
        except Refused as refused:
            if refused.status != 429:
                raise
            for history in histories:
                history.states.pop()
        else:
            for history in histories:
                history.acknowledged = len(history.states) - 1
            self.answered += 1
        self.unanswered = []

    def points(self, ids: list[str]) -> dict[str, Stored]:
        """New content for these ids: whole numbers up to 127, which all three vector types hold exactly.

        One payload in eight is none.
        """
        vectors = self.rng.integers(-127, 128, (len(ids), DIMENSION)).astype("<f4")
        vectors[:, self.rng.integers(DIMENSION)] = 127
        versions = self.rng.integers(1 << 40, size=len(ids)).tolist()
        return {
            point_id: (row.tobytes(), {"id": point_id, "version": version} if version % 8 else None)
            for point_id, row, version in zip(ids, vectors, versions, strict=True)
        }


class Writers:
    """Clients at work in threads of their own, until left; then what went wrong in one is raised."""

    def __init__(self, clients: Sequence[Client], port: int, shapes: list[Shape]) -> None:
        self._clients, self._port, self._shapes = clients, port, shapes
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(len(clients))

    def __enter__(self) -> Writers:
        for client in self._clients:
            client.answered = 0
        self._work = [
            self._threads.submit(client.write, self._port, self._stop.is_set, self._shapes)
            for client in self._clients
        ]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._threads.shutdown()
        for work in self._work:
            work.result()


def wrong(name: str, point_id: str, found: Stored | None, history: History) -> str:
    """Describe a point that is not in an allowed state."""
    states = history.states
    known = f"state {states.index(found)}" if found in states else f"what nobody wrote: {found}"
    shown = "gone" if found is None else known
    return (
        f"{point_id} in {name} is {shown}; acknowledged is state {history.acknowledged} of {len(states) - 1}"
    )
