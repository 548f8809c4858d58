"""The clients of a soak: they do everything that their key allows, at random, and on the record."""

from __future__ import annotations

import http.client
import random
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from tests.crash.journal import DIMENSION, Client, Shape
from tests.crash.rest import Refused, Rest, Stored

KEYS = 5
COLLECTIONS_PER_KEY = 10
IDS_PER_CLIENT = 40
BATCH_MAX = 20
BULK_DIMENSION = 512
BULK_POINTS = 1000
REFUSALS = frozenset({404, 409, 413, 429, 503, 507})
"""Statuses that a client may get when others drop its scratch, or when room, memory or a collection lacks."""
METRICS = ("Cosine", "Euclidean", "DotProduct", "Manhattan")
TYPES = ("Float32", "Float16", "Int8")


def key_of(number: int) -> str:
    """The text of a key."""
    return f"key-{number}-" + "0123456789abcdef" * 2


def key_file() -> str:
    """The keys, each for its own collections."""
    lines = ["keys:", f"- {{name: root, role: admin, key: {key_of(99)}}}"]
    lines += [
        f"- {{name: k{number}, role: admin, collections: ['k{number}-*'], key: {key_of(number)}}}"
        for number in range(KEYS)
    ]
    return "\n".join(lines) + "\n"


def shapes_of(key: int) -> list[Shape]:
    """The collections of one key."""
    return [
        Shape(f"k{key}-c{number}", METRICS[number % 4], TYPES[number % 3], IDS_PER_CLIENT, BATCH_MAX)
        for number in range(COLLECTIONS_PER_KEY)
    ]


class SoakClient(Client):
    """A journal's client that also searches, checks, copies, and fills and drops collections of its own."""

    def __init__(self, number: int, seed: int, done: Counter[str], told: Counter[int]) -> None:
        self.key = number % KEYS
        super().__init__(number, shapes_of(self.key), seed)
        self._scratch = f"k{self.key}-scratch{number}"
        self._done, self._told = done, told
        self._chance = random.Random(seed * 1000 + number)
        self._turn = number
        self.findings: list[str] = []

    def write(self, port: int, stopped: Callable[[], bool], shapes: list[Shape]) -> None:
        """Work until the end of a round, or until the engine is gone."""
        try:
            with Rest(port, key=key_of(self.key)) as rest:
                while not stopped():
                    self._turn += 1
                    shape = self.shapes[self._turn % len(self.shapes)]
                    self._attempt(rest, shape)
        except (OSError, http.client.HTTPException):
            pass  # killed: the request under way stays unanswered

    def _attempt(self, rest: Rest, shape: Shape) -> None:
        try:
            if self._chance.random() < 0.6:
                self._step(rest, [shape])
            else:
                self._chance.choice([self._search, self._read, self._upkeep, self._bulk])(rest, shape.name)
        except Refused as refused:
            self._told[refused.status] += 1
            if refused.status not in REFUSALS:
                self.findings.append(f"{shape.name}: {refused}")
        else:
            self._done[shape.name] += 1

    def _do(self, name: str, states: Mapping[str, Stored | None], request: Callable[[], None]) -> None:
        """Record a write; one that was refused for certain changed nothing."""
        self.unanswered = [(name, point_id) for point_id in states]
        histories = [self.histories[key] for key in self.unanswered]
        for history, state in zip(histories, states.values(), strict=True):
            history.states.append(state)
        try:
            request()
        except Refused as refused:
            if refused.kind != "OutcomeUnknown":
                for history in histories:
                    history.states.pop()
                self.unanswered = []
            raise
        for history in histories:
            history.acknowledged = len(history.states) - 1
        self.answered += 1
        self.unanswered = []

    def _search(self, rest: Rest, name: str) -> None:
        vector = np.asarray(self.rng.integers(1, 127, DIMENSION), "<f4").tobytes()
        if self._chance.random() < 0.3:
            body = {"vector": vector, "limit": 5, "filter": {"version": {"$gt": 1 << 39}}}
            rest.packed("POST", f"/collections/{name}/search", body)
        else:
            hits = [hit["id"] for hit in rest.search(name, vector)]
            if len(set(hits)) != len(hits):
                self.findings.append(f"{name}: an id came twice: {hits}")

    def _read(self, rest: Rest, name: str) -> None:
        """Read ids that no other client writes: each point must be what was acknowledged last."""
        ids = self.rng.choice(self.ids[name], BATCH_MAX, replace=False).tolist()
        found = rest.get_many(name, ids)
        for point_id in ids:
            history = self.histories[name, point_id]
            if found.get(point_id) not in history.allowed():
                self.findings.append(f"{name}: {point_id} is not what was acknowledged")

    def _upkeep(self, rest: Rest, name: str) -> None:
        work = self._chance.choice(["check", "compact", "stats", "describe"])
        name = self._chance.choice([name, self._scratch])
        if work in ("check", "compact"):
            rest.call("POST", f"/collections/{name}/{work}")
        else:
            rest.call("GET", f"/collections/{name}" + ("/stats" if work == "stats" else ""))

    def _bulk(self, rest: Rest, name: str) -> None:
        """Large rows until memory or room is short; dropped now and then, and created again."""
        chance = self._chance.random()
        if chance < 0.02:
            rest.call("DELETE", f"/collections/{self._scratch}/hard-delete")
        elif chance < 0.1:
            rest.create(self._scratch, BULK_DIMENSION, self._chance.choice(METRICS))
        else:
            rows = self.rng.random((BULK_POINTS, BULK_DIMENSION), np.float32)
            body = {"ids": None, "vectors": rows.astype("<f4").tobytes(), "metadata": None}
            rest.packed("POST", f"/collections/{self._scratch}/vectors/batch", body)
