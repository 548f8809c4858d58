"""A client that writes and searches without a pause worth the name, and remembers what was acknowledged."""

from __future__ import annotations

import http.client
import random
import struct
import threading
import time
from collections import Counter
from types import TracebackType

from tests.crash.rest import Refused, Rest, Stored, Unreached
from tests.e2e.release import PORT, Release

DIMENSION = 8
BATCH = 20
PAUSE_SECONDS = 0.02
AGAIN_SECONDS = 0.05
RETRIED = (429, 503)
"""Statuses that a well-made client retries: each means that nothing was done."""


class Load:
    """Two threads, a writer and a searcher, of one collection, from entering until leaving.

    Each repeats requests that were answered 429 or 503, and requests for which no server listened. A request
    that ended without an answer is repeated too, since writes are by id, and counted in `broken`.
    """

    def __init__(self, release: Release, collection: str) -> None:
        self._release = release
        self.collection = collection
        self.acknowledged: list[str] = []
        self.searches = 0
        self.longest_gap = 0.0
        """Longest time between two answered searches, in seconds; a reader may reset it."""
        self._found_at = 0.0
        self.broken: Counter[str] = Counter()
        """Requests that ended without an answer after they were sent, by the error."""
        self.refused: Counter[str] = Counter()
        """Refusals that no second try would mend, by their text."""
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(work,), daemon=True)
            for work in (self._write, self._search)
        ]

    def __enter__(self) -> Load:
        self._address = self._release.address
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(60)

    def verify(self) -> None:
        """Everything acknowledged is there, as it was sent; and there was something."""
        assert self.acknowledged
        assert self.searches
        assert not self.refused, self.refused
        acknowledged = list(self.acknowledged)
        with self._release.rest() as rest:
            found = rest.get_many(self.collection, acknowledged)
        lost = [point for point in acknowledged if found.get(point) != _point(point)]
        assert lost == [], f"{len(lost)} of {len(acknowledged)}: {lost[:5]}"

    def wait_for_more(self, writes: int = 100, seconds: float = 60.0) -> None:
        """Until so many more points are acknowledged."""
        wanted, deadline = len(self.acknowledged) + writes, time.monotonic() + seconds
        while len(self.acknowledged) < wanted:
            assert time.monotonic() < deadline, f"{len(self.acknowledged)} of {wanted} points"
            time.sleep(PAUSE_SECONDS)

    def _run(self, work: object) -> None:
        assert callable(work)
        with Rest(PORT, 30, host=self._address, key=self._release.keys["app"]) as rest:
            number = 0
            while not self._stopped.is_set():
                try:
                    work(rest, number)
                    number += 1
                    self._stopped.wait(PAUSE_SECONDS)
                except Refused as refused:
                    if refused.status not in RETRIED:
                        self.refused[str(refused)] += 1
                    self._stopped.wait(AGAIN_SECONDS)
                except Unreached:
                    self._stopped.wait(AGAIN_SECONDS)
                except (OSError, http.client.HTTPException) as error:
                    self.broken[repr(error)] += 1
                    self._stopped.wait(AGAIN_SECONDS)

    def _write(self, rest: Rest, number: int) -> None:
        ids = [f"{number}-{place}" for place in range(BATCH if number % 5 == 0 else 1)]
        points = {point: _point(point) for point in ids}
        if len(points) == 1:
            rest.put(self.collection, ids[0], points[ids[0]])
        else:
            rest.put_many(self.collection, points)
        self.acknowledged += ids

    def _search(self, rest: Rest, number: int) -> None:
        rest.search(self.collection, _point(str(number))[0])
        self.searches += 1
        now = time.monotonic()
        self.longest_gap = max(self.longest_gap, now - (self._found_at or now))
        self._found_at = now


def _point(point_id: str) -> Stored:
    """The same one for an id each time."""
    values = random.Random(point_id)
    return struct.pack(f"<{DIMENSION}f", *(values.random() for _ in range(DIMENSION))), {"id": point_id}
