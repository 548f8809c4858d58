"""Conditional writes over HTTP, in both formats: headers and fields, races, restarts and kills."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import msgspec
import numpy as np
import pytest

from tests.engine_process import EngineProcess
from tests.waiting import SECONDS_MAX

NUMBERS = itertools.count()
WRITERS = 4
INCREMENTS = 25


class Client:
    """Speaks one of the two formats to the collection `docs`."""

    def __init__(self, engine: EngineProcess, media: str) -> None:
        self.is_packed = media == "msgpack"
        self._code = msgspec.msgpack if self.is_packed else msgspec.json
        headers = {"Content-Type": f"application/{media}", "Accept": f"application/{media}"}
        self._url = f"{engine.url}/collections/docs"
        self._http = httpx.Client(headers=headers, trust_env=False, timeout=SECONDS_MAX)

    def close(self) -> None:
        self._http.close()

    def call(self, method, path, document=None, **headers):
        """Status and data, or status and error."""
        content = b"" if document is None else self._code.encode(document)
        return self.send(method, path, content, **headers)

    def send(self, method, path, content, **headers):
        """Status and data of a body that is encoded already."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self._http.request(method, f"{self._url}/{path}".rstrip("/"), content=content, headers=named)
        self.headers = answer.headers
        decoded = self._code.decode(answer.content)
        return answer.status_code, decoded["data"] if decoded["success"] else decoded

    def point(self, value, **fields):
        vector = np.array([value, 1, 2], "<f4")
        return {"data": vector.tobytes() if self.is_packed else vector.tolist(), **fields}

    def batch(self, values, **fields):
        """The body of a batch of points by id; an id of None is left out."""
        if not self.is_packed:
            points = [self.point(v, **({"id": i} if i is not None else {})) for i, v in values]
            return {"vectors": points, **fields}
        vectors = np.array([[value, 1, 2] for _, value in values], "<f4")
        ids = [point_id for point_id, _ in values]
        given = {} if None in ids else {"ids": ids}
        return {"vectors": vectors.tobytes(), **given, **fields}

    def put(self, point_id, value, /, fields=None, **headers):
        return self.call("PUT", f"vectors/{point_id}", self.point(value, **(fields or {})), **headers)

    def read(self, point_id):
        """Value and ETag; None for an unknown point."""
        status, data = self.call("GET", f"vectors/{point_id}")
        if status == 404:
            return None
        values = np.frombuffer(data["data"], "<f4") if self.is_packed else data["data"]
        return float(values[0]), self.headers["etag"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with EngineProcess(tmp_path_factory.mktemp("volume") / "data") as running:
        declare(running)
        yield running


@pytest.fixture(params=["json", "msgpack"])
def client(engine, request):
    speaking = Client(engine, request.param)
    yield speaking
    speaking.close()


@pytest.fixture
def point():
    return f"p{next(NUMBERS)}"


def declare(engine):
    shape = {"name": "docs", "dimension": 3, "distance_metric": "Euclidean"}
    httpx.post(f"{engine.url}/collections", json=shape, trust_env=False).raise_for_status()


def log_bytes(engine):
    """The bytes of the collection's log."""
    return sum(path.stat().st_size for path in (engine.data / "wal").rglob("*.log"))


def check_unmet(outcome, point_id, words):
    status, error = outcome
    assert (status, error["details"]["kind"], error["details"]["id"]) == (412, "PreconditionFailed", point_id)
    assert words in error["error"]


ABSENT = [({"if_absent": True}, {}), ({}, {"If_None_Match": "*"})]
PRESENT = [({"if_exists": True}, {}), ({}, {"If_Match": "*"})]
WAYS = ["field", "header"]


@pytest.mark.parametrize(("fields", "headers"), ABSENT, ids=WAYS)
def test_an_insert_only_write_keeps_the_point_that_exists(client, point, fields, headers):
    assert client.put(point, 1, fields, **headers)[0] == 200
    check_unmet(client.put(point, 2, fields, **headers), point, "exists already")
    post = client.point(3, id=point, **fields)
    check_unmet(client.call("POST", "vectors", post, **headers), point, "exists already")
    assert client.read(point)[0] == 1
    status, made = client.call("POST", "vectors", client.point(4, **fields), **headers)
    assert status == 200
    assert client.read(made)[0] == 4


@pytest.mark.parametrize(("fields", "headers"), PRESENT, ids=WAYS)
def test_an_update_only_write_makes_no_point(client, point, fields, headers):
    check_unmet(client.put(point, 1, fields, **headers), point, "does not exist")
    assert client.read(point) is None
    client.put(point, 1)
    assert client.put(point, 2, fields, **headers)[0] == 200
    assert client.call("POST", "vectors", client.point(3, id=point, **fields), **headers) == (200, point)
    assert client.read(point)[0] == 3
    status, error = client.call("POST", "vectors", client.point(4, **fields), **headers)
    assert (status, error["details"]["field"]) == (400, "id")


def test_a_batch_with_a_condition_answers_the_ids_that_it_wrote(client, point):
    other = f"{point}-other"
    client.put(point, 1)
    both = [(point, 5), (other, 6)]
    assert client.call("POST", "vectors/batch", client.batch(both, if_exists=True)) == (200, [point])
    assert (client.read(point)[0], client.read(other)) == (5, None)
    both = [(point, 7), (other, 8)]
    assert client.call("POST", "vectors/batch", client.batch(both, if_absent=True)) == (200, [other])
    assert (client.read(point)[0], client.read(other)[0]) == (5, 8)
    assert client.call("POST", "vectors/batch", client.batch(both, if_absent=True)) == (200, [])
    assert client.call("POST", "vectors/batch", client.batch(both)) == (200, [point, other])
    assert client.read(point)[0] == 7
    status, ids = client.call("POST", "vectors/batch", client.batch([(None, 1)], if_absent=True))
    assert (status, len(ids)) == (200, 1)


def test_an_update_only_batch_needs_ids(client):
    status, error = client.call("POST", "vectors/batch", client.batch([(None, 1)], if_exists=True))
    assert (status, error["details"]["field"]) == (400, "vectors[0].id")


def test_a_write_replaces_only_the_version_that_it_names(client, point):
    client.put(point, 1)
    value, first = client.read(point)
    assert (value, client.read(point)[1]) == (1, first)
    assert client.put(point, 2, If_Match=first)[0] == 200
    second = client.read(point)[1]
    assert second != first
    check_unmet(client.put(point, 3, If_Match=first), point, "If-Match")
    check_unmet(client.call("POST", "vectors", client.point(3, id=point), If_Match=first), point, "If-Match")
    check_unmet(client.call("DELETE", f"vectors/{point}", If_Match=first), point, "If-Match")
    assert client.read(point) == (2, second)
    assert client.call("DELETE", f"vectors/{point}", If_Match=second)[0] == 200
    check_unmet(client.put(point, 4, If_Match=second), point, "If-Match")
    client.put(point, 2)
    check_unmet(client.put(point, 4, If_Match=second), point, "If-Match")


def test_equal_content_that_is_written_again_is_another_version(client, point):
    client.put(point, 1)
    first = client.read(point)[1]
    client.put(point, 1)
    check_unmet(client.put(point, 2, If_Match=first), point, "If-Match")


def test_a_list_matches_when_one_tag_does_and_a_weak_tag_never(client, point):
    client.put(point, 1)
    tag = client.read(point)[1]
    check_unmet(client.put(point, 2, If_Match=f"W/{tag}"), point, "If-Match")
    check_unmet(client.put(point, 2, If_Match=f'"other", W/{tag}'), point, "If-Match")
    assert client.put(point, 2, If_Match=f'"a,b",{tag}, W/"x"')[0] == 200


def test_a_delete_of_an_absent_point_is_a_404_with_any_condition(client, point):
    assert client.call("DELETE", f"vectors/{point}", If_Match="*")[0] == 404
    assert client.call("DELETE", f"vectors/{point}", If_Match='"x"')[0] == 404
    client.put(point, 1)
    assert client.call("DELETE", f"vectors/{point}", If_Match="*")[0] == 200


@pytest.mark.parametrize(
    ("fields", "headers", "field"),
    [
        ({"if_absent": True, "if_exists": True}, {}, "if_exists"),
        ({"if_absent": True}, {"If_Match": '"x"'}, "if_absent"),
        ({}, {"If_Match": "*", "If_None_Match": "*"}, "If-None-Match"),
        ({}, {"If_None_Match": '"x"'}, "If-None-Match"),
        ({}, {"If_Match": "x"}, "If-Match"),
        ({}, {"If_Match": ""}, "If-Match"),
        ({}, {"If_Match": '"x" "y"'}, "If-Match"),
        ({}, {"If_Match": '*, "x"'}, "If-Match"),
    ],
)
def test_a_condition_that_cannot_be_kept_is_refused(client, point, fields, headers, field):
    client.put(point, 1)
    status, error = client.put(point, 2, fields, **headers)
    assert (status, error["details"]["field"]) == (400, field)
    assert client.read(point)[0] == 1


def test_false_and_null_are_no_condition(client, point):
    assert client.put(point, 1, {"if_absent": False, "if_exists": None})[0] == 200
    assert client.put(point, 2, {"if_absent": None, "if_exists": True})[0] == 200
    status, error = client.put(point, 2, {"if_absent": 1})
    assert (status, error["details"]["field"]) == (422, "if_absent")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "vectors/batch"),
        ("POST", "vectors/delete"),
        ("POST", "points/delete"),
        ("DELETE", ""),
    ],
)
def test_a_write_that_cannot_keep_a_condition_refuses_it(client, point, method, path):
    client.put(point, 1)
    status, error = client.call(method, path, None, If_Match='"x"')
    assert (status, error["details"]["field"]) == (400, "If-Match")
    status, error = client.call("DELETE", f"vectors/{point}", If_None_Match="*")
    assert (status, error["details"]["field"]) == (400, "If-None-Match")
    assert client.read(point)[0] == 1


def test_a_repeated_condition_is_refused(client):
    if client.is_packed:
        once = msgspec.msgpack.encode(client.point(1, if_absent=True))
        body = b"\x83" + once[1:] + msgspec.msgpack.encode("if_absent") + b"\xc2"
    else:
        body = b'{"data": [1, 2, 3], "if_absent": true, "if_absent": false}'
    status, error = client.send("POST", "vectors", body)
    assert (status, "more than once" in error["error"]) == (400, True)


def test_an_unmet_condition_is_not_logged(engine, client, point):
    client.put(point, 1)
    before = log_bytes(engine)
    assert client.put(point, 2, If_None_Match="*")[0] == 412
    assert client.put(point, 2, If_Match='"x"')[0] == 412
    assert client.call("DELETE", f"vectors/{point}", If_Match='"x"')[0] == 412
    assert client.call("POST", "vectors/batch", client.batch([(point, 2)], if_absent=True)) == (200, [])
    assert log_bytes(engine) == before


def test_no_increment_of_racing_writers_is_lost(engine, client, point):
    media = "msgpack" if client.is_packed else "json"
    client.put(point, 0)

    def increment(_):
        mine = Client(engine, media)
        lost = 0
        for _ in range(INCREMENTS):
            while True:
                value, tag = mine.read(point)
                status, _ = mine.put(point, value + 1, If_Match=tag)
                if status == 200:
                    break
                assert status == 412
                lost += 1
        mine.close()
        return lost

    with ThreadPoolExecutor(WRITERS) as pool:
        lost = list(pool.map(increment, range(WRITERS)))
    assert client.read(point)[0] == WRITERS * INCREMENTS
    assert sum(lost) > 0, "the writers did not meet"


def test_exactly_one_of_racing_inserts_wins(engine, client, point):
    media = "msgpack" if client.is_packed else "json"
    together = threading.Barrier(WRITERS)

    def insert(number):
        mine = Client(engine, media)
        won = []
        for round_ in range(INCREMENTS):
            together.wait(SECONDS_MAX)
            status, _ = mine.put(f"{point}-{round_}", number, If_None_Match="*")
            assert status in (200, 412)
            if status == 200:
                won.append(round_)
        mine.close()
        return won

    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(insert, range(WRITERS)))
    assert sorted(itertools.chain(*won)) == list(range(INCREMENTS))
    for number, rounds in enumerate(won):
        assert all(client.read(f"{point}-{round_}")[0] == number for round_ in rounds)


@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize("media", ["json", "msgpack"])
def test_a_version_holds_after_a_restart(tmp_path, media, end):
    with EngineProcess(tmp_path / "data") as engine:
        declare(engine)
        client = Client(engine, media)
        for name in ("a", "b"):
            client.put(name, 1)
        a, b = client.read("a")[1], client.read("b")[1]
        client.put("b", 2, If_Match=b)
        body = client.batch([("a", 8), ("c", 3)], if_absent=True)
        assert client.call("POST", "vectors/batch", body) == (200, ["c"])
        getattr(engine, end)()
        engine.start()
        assert [client.read(name)[0] for name in ("a", "b", "c")] == [1, 2, 3]
        assert client.read("a")[1] == a
        check_unmet(client.put("b", 9, If_Match=b), "b", "If-Match")
        check_unmet(client.put("c", 9, If_None_Match="*"), "c", "exists already")
        assert client.put("a", 2, If_Match=a)[0] == 200
        client.close()


def test_a_collection_that_is_made_again_has_other_versions(tmp_path):
    with EngineProcess(tmp_path / "data") as engine:
        declare(engine)
        client = Client(engine, "json")
        client.put("a", 1)
        tag = client.read("a")[1]
        httpx.delete(f"{engine.url}/collections/docs", trust_env=False).raise_for_status()
        declare(engine)
        client.put("a", 1)
        assert client.read("a")[1] != tag
        check_unmet(client.put("a", 2, If_Match=tag), "a", "If-Match")
        client.close()
