"""Changes of many points against a real process: killed between batches, repeated, and under other writes."""

from __future__ import annotations

import random
import threading
from collections import Counter
from contextlib import suppress

import httpx
import msgspec
import numpy as np
import pytest

from tests.engine_process import EngineProcess
from tests.waiting import SECONDS_MAX
from vecstow_engine.service.selections import CHANGED_POINTS, DELETED_POINTS

MANY = "/collections/many"
PACKED = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}


def client_of(engine: EngineProcess) -> httpx.Client:
    return httpx.Client(base_url=engine.url, timeout=SECONDS_MAX, trust_env=False)


def fill(engine: EngineProcess, count: int) -> None:
    """Points 00000, 00001, … of the groups 0 to 9 in turn."""
    shape = {"name": "many", "dimension": 2, "distance_metric": "Euclidean"}
    httpx.post(f"{engine.url}/collections", json=shape, trust_env=False).raise_for_status()
    with client_of(engine) as client:
        for start in range(0, count, 5000):
            numbers = range(start, min(start + 5000, count))
            body = {
                "vectors": np.array([[number, 1] for number in numbers], "<f4").tobytes(),
                "ids": [f"{number:05d}" for number in numbers],
                "metadata": [{"group": number % 10, "n": 0} for number in numbers],
            }
            content = msgspec.msgpack.encode(body)
            client.post(f"{MANY}/vectors/batch", content=content, headers=PACKED).raise_for_status()


def ask(client: httpx.Client, what: str, **body: object) -> dict:
    answer = client.post(f"{MANY}/points/{what}", content=msgspec.msgpack.encode(body), headers=PACKED)
    assert answer.status_code == 200, answer.text
    return msgspec.msgpack.decode(answer.content)["data"]


def scrolled(client: httpx.Client, **body: object) -> list[dict]:
    found, cursor = [], None
    while not found or cursor is not None:
        page = ask(client, "scroll", limit=1000, cursor=cursor, **body)
        found += page["points"]
        cursor = page["next_cursor"]
    return found


@pytest.mark.parametrize("what", ["delete", "payload"])
def test_a_change_that_is_killed_leaves_whole_batches_and_goes_on(tmp_path, what):
    """Points of nine groups of ten change; the tenth stays as it is."""
    count, batch = (40_000, DELETED_POINTS) if what == "delete" else (6_000, CHANGED_POINTS)
    body = {"filter": {"group": {"$lt": 9}}} | ({} if what == "delete" else {"merge": {"n": 1}})
    with EngineProcess(tmp_path / "data", "--checkpoint-seconds", 1) as engine:
        fill(engine, count)
        with client_of(engine) as client, client_of(engine) as other:

            def change() -> None:
                with suppress(httpx.HTTPError):
                    ask(other, what, **body)

            thread = threading.Thread(target=change)
            thread.start()
            while thread.is_alive():
                progress = client.get(MANY).json()["data"]["progress"] or {}
                if progress.get("task") == what and progress["done"]:
                    break
            engine.kill()
            thread.join()
        engine.start()
        with client_of(engine) as client:
            left = {"group": {"$lt": 9}, "n": 0}
            remaining = ask(client, "count", filter=left)["count"]
            done = count * 9 // 10 - remaining
            assert done > 0
            assert done % batch == 0 or remaining == 0
            again = ask(client, what, **body)
            assert again == ({"deleted": remaining} if what == "delete" else {"updated": count * 9 // 10})
            points = scrolled(client)
        whole = {f"{number:05d}": {"group": number % 10, "n": 0} for number in range(count)}
        expected = {
            point_id: payload | ({"n": 1} if payload["group"] < 9 else {})
            for point_id, payload in whole.items()
            if what == "payload" or payload["group"] == 9
        }
        assert [point["id"] for point in points] == sorted(expected)
        assert {point["id"]: point["metadata"] for point in points} == expected


def test_scrolls_deletes_and_updates_agree_while_all_go_on(tmp_path):
    """Points of group 9 stay, and are updated all the time; the others are deleted and come back."""
    count = 3_000
    stay = {f"{number:05d}" for number in range(count) if number % 10 == 9}
    failures: list[str] = []
    with EngineProcess(tmp_path / "data", "--checkpoint-seconds", 0.2) as engine:
        fill(engine, count)
        busy = threading.Event()

        def update() -> None:
            choose = random.Random(1)
            with client_of(engine) as client:
                while not busy.is_set():
                    ids = choose.sample(sorted(stay), 20)
                    if ask(client, "payload", ids=ids, merge={"n": choose.random()}) != {"updated": 20}:
                        failures.append("an update missed a point that stays")

        def delete_and_restore() -> None:
            choose = random.Random(2)
            with client_of(engine) as client:
                while not busy.is_set():
                    group = choose.randrange(9)
                    ask(client, "delete", filter={"group": group})
                    if ask(client, "count", filter={"group": group}) != {"count": 0}:
                        failures.append("a deleted point was counted")
                    ids = [f"{number:05d}" for number in range(group, count, 10)]
                    body = {
                        "vectors": np.ones((len(ids), 2), "<f4").tobytes(),
                        "ids": ids,
                        "metadata": [{"group": group, "n": 0}] * len(ids),
                    }
                    content = msgspec.msgpack.encode(body)
                    client.post(f"{MANY}/vectors/batch", content=content, headers=PACKED).raise_for_status()

        threads = [threading.Thread(target=call) for call in (update, delete_and_restore)]
        for thread in threads:
            thread.start()
        with client_of(engine) as client:
            for order in (None, "group", {"field": "group", "direction": "desc"}) * 3:
                counts = Counter(point["id"] for point in scrolled(client, order_by=order, with_vectors=True))
                assert {i: counts[i] for i in stay} == dict.fromkeys(stay, 1)
                assert ask(client, "count", filter={"group": 9}) == {"count": len(stay)}
                values = ask(client, "facet", field="group")["values"]
                assert {"value": 9, "count": len(stay)} in values
        busy.set()
        for thread in threads:
            thread.join()
    assert failures == []
