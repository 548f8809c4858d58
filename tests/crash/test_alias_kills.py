"""SIGKILL in the middle of switches: an alias leads where the last acknowledged switch says, or one later."""

from __future__ import annotations

import http.client
import itertools
import threading

import numpy as np

from tests.crash.rest import Rest
from tests.crash.served import assert_clean
from tests.engine_process import EngineProcess
from tests.waiting import wait_for

SEED = 20_251_201
KILLS = 12
COLLECTIONS = ("docs-1", "docs-2", "docs-3")
ALIAS = "docs"
POINT = {"a": (np.ones(4, "<f4").tobytes(), None)}


class Switcher:
    """A client that switches the alias all the time, and knows which switches were acknowledged."""

    def __init__(self, port: int, begin: int) -> None:
        self._port = port
        self.sent = self.acknowledged = begin
        self._thread = threading.Thread(target=self._switch)

    def __enter__(self) -> Switcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _switch(self) -> None:
        try:
            with Rest(self._port) as rest:
                for number in itertools.count(self.sent + 1):
                    self.sent = number
                    rest.call("PUT", f"/aliases/{ALIAS}", {"collection": name_of(number)})
                    self.acknowledged = number
        except (OSError, http.client.HTTPException):
            pass  # killed: the last switch stays unanswered


def name_of(number: int) -> str:
    return COLLECTIONS[number % len(COLLECTIONS)]


def test_no_kill_takes_an_acknowledged_switch_back_and_none_breaks_the_alias(tmp_path):
    rng = np.random.default_rng(SEED)
    with EngineProcess(tmp_path / "data", "--reserve-bytes", 0) as engine:
        with Rest(engine.port) as rest:
            for name in COLLECTIONS:
                rest.create(name, 4)
                rest.put_many(name, POINT)
            rest.call("PUT", f"/aliases/{ALIAS}", {"collection": name_of(0)})
        number = switches = 0
        for _ in range(KILLS):
            with Switcher(engine.port, number) as switcher:
                goal = number + int(rng.integers(1, 12))
                wait_for(lambda at=switcher, goal=goal: at.acknowledged >= goal, "acknowledged switches")
                engine.kill()
            switches += switcher.acknowledged - number
            engine.start()
            with Rest(engine.port) as rest:
                found = rest.call("GET", f"/aliases/{ALIAS}")["collection"]
                assert found in {name_of(switcher.acknowledged), name_of(switcher.sent)}
                assert rest.describe(ALIAS)["name"] == found
                assert rest.get_many(ALIAS, ["a"]) == POINT
            number = switcher.sent if found == name_of(switcher.sent) else switcher.acknowledged
        assert switches >= KILLS
        assert engine.stop() == 0
        assert_clean(engine)
