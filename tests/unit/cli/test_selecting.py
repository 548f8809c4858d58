"""The commands for many points: what they ask of a real engine, and what they print."""

from __future__ import annotations

import json
import logging
import socket
import threading

import httpx
import pytest
import structlog
import uvicorn

from tests.unit.running_engine import RunningEngine
from tests.waiting import SECONDS_MAX
from vecstow_engine.api.server import create_app
from vecstow_engine.cli import selecting

BOOKS = {
    "b1": {"title": "Emma", "year": 1815, "lang": "en", "shelf": {"room": "A"}},
    "b2": {"title": "Faust", "year": 1808, "lang": "de"},
    "b3": {"title": "Peer\u2028Gynt", "lang": "no"},
    "b4": {"title": "Dracula", "year": 1897, "lang": "en"},
}


@pytest.fixture
def url(tmp_path, monkeypatch):
    """The address of an engine with the books; VECSTOW_URL has it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    engine = RunningEngine(tmp_path / "data")
    listener = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(create_app(engine), log_config=None, lifespan="on"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(base_url=url, timeout=SECONDS_MAX, trust_env=False) as client:
        shape = {"name": "books", "dimension": 2, "distance_metric": "Euclidean"}
        client.post("/collections", json=shape).raise_for_status()
        points = [{"id": i, "data": [1, n], "metadata": book} for n, (i, book) in enumerate(BOOKS.items())]
        client.post("/collections/books/vectors/batch", json={"vectors": points}).raise_for_status()
    monkeypatch.setenv("VECSTOW_URL", url)
    monkeypatch.delenv("VECSTOW_DATA", raising=False)
    yield url
    running.should_exit = True
    thread.join()
    structlog.reset_defaults()


def answered(vecstow, *arguments):
    code, out, err = vecstow(*arguments)
    assert (code, err) == (0, "")
    return out


def stored(url):
    body = {"limit": 10_000}
    page = httpx.post(
        f"{url}/collections/books/points/scroll", json=body, timeout=SECONDS_MAX, trust_env=False
    )
    return {point["id"]: point["metadata"] for point in page.json()["data"]["points"]}


def test_scroll_prints_a_page_and_the_way_to_the_next(vecstow, url):
    code, out, err = vecstow("scroll", "books", "--limit", 2, "--fields", "year,shelf.room")
    assert (code, [line.split()[0] for line in out.splitlines()]) == (0, ["id", "b1", "b2"])
    assert '{"year": 1815, "shelf": {"room": "A"}}' in out
    cursor = err.removeprefix("more: the same command with --cursor ").strip()
    out = answered(vecstow, "scroll", "books", "--limit", 2, "--cursor", cursor, "--without-payload")
    assert out.split() == ["id", "b3", "b4"]


def test_scroll_orders_and_filters_as_it_is_asked(vecstow, url):
    page = json.loads(
        answered(
            vecstow, "scroll", "books", "--order-by", "year", "--descending", "--json",
            "--filter", '{"lang": {"$ne": "de"}}', "--with-vectors", "--without-payload",
        )
    )  # fmt: skip
    assert page == {
        "points": [{"id": "b4", "data": [1.0, 3.0]}, {"id": "b1", "data": [1.0, 0.0]}],
        "next_cursor": None,
    }


def test_scroll_prints_all_points_a_document_a_line(vecstow, url, monkeypatch):
    monkeypatch.setattr(selecting, "PAGE_POINTS", 1)
    lines = answered(vecstow, "scroll", "books", "--all").removesuffix("\n").split("\n")
    assert {point["id"]: point["metadata"] for point in map(json.loads, lines)} == BOOKS


def test_count_and_facet(vecstow, url):
    assert answered(vecstow, "count", "books") == "4\n"
    assert answered(vecstow, "count", "books", "--filter", '{"year": {"$lt": 1850}}') == "2\n"
    assert json.loads(answered(vecstow, "count", "books", "--json")) == {"count": 4}
    out = answered(vecstow, "facet", "books", "lang", "--limit", 2)
    assert [line.split() for line in out.splitlines()] == [["points", "value"], ["2", '"en"'], ["1", '"de"']]
    answer = json.loads(answered(vecstow, "facet", "books", "lang", "--filter", '{"year": 1808}', "--json"))
    assert answer == {"values": [{"value": "de", "count": 1}]}


def test_set_payload_by_ids_and_by_a_filter(vecstow, url, monkeypatch):
    monkeypatch.setattr(selecting, "IDS_PER_REQUEST", 1)
    assert answered(vecstow, "set-payload", "books", "b2", "b3", "none", "b2", "--set", '{"k": 1}') == (
        "2 points changed\n"
    )
    out = answered(
        vecstow, "set-payload", "books", "--filter", '{"lang": "en"}',
        "--merge", '{"lang": null}', "--unset", "year,shelf.room", "--json",
    )  # fmt: skip
    assert json.loads(out) == {"updated": 2}
    assert stored(url) == {
        "b1": {"title": "Emma", "lang": None, "shelf": {}},
        "b2": {"k": 1},
        "b3": {"k": 1},
        "b4": {"title": "Dracula", "lang": None},
    }


def test_delete_counts_first_when_it_is_asked_to(vecstow, url, tmp_path, monkeypatch):
    monkeypatch.setattr(selecting, "IDS_PER_REQUEST", 2)
    by_filter = ("delete", "books", "--filter", '{"lang": "en"}')
    (tmp_path / "ids").write_text("b3\nnone\nb2\nb3\n")
    by_ids = ("delete", "books", "--ids", tmp_path / "ids")
    assert answered(vecstow, *by_filter, "--dry-run") == "2 points would be deleted\n"
    assert json.loads(answered(vecstow, *by_ids, "--dry-run", "--json")) == {"count": 2}
    assert answered(vecstow, "delete", "books", "--all", "--dry-run") == "4 points would be deleted\n"
    assert stored(url) == BOOKS
    assert answered(vecstow, *by_filter) == "2 points deleted\n"
    assert json.loads(answered(vecstow, *by_ids, "--json")) == {"deleted": 2}
    assert stored(url) == {}
    assert answered(vecstow, "delete", "books", "--all") == "0 points deleted\n"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("scroll", "books", "--descending"), 2, "--descending needs --order-by"),
        (("scroll", "books", "--fields", "a", "--without-payload"), 2, "exclude each other"),
        (("scroll", "books", "--cursor", "x"), 1, "cursor is no cursor of a scroll"),
        (("count", "books", "--filter", "{"), 1, "--filter is no valid JSON"),
        (("count", "books", "--filter", '{"a": NaN}'), 1, "--filter holds a number that is not finite"),
        (("count", "none"), 1, "collection 'none' does not exist"),
        (("delete", "books"), 2, "give one of ids, --ids, --filter and --all"),
        (("delete", "books", "b1", "--all"), 2, "give one of ids"),
        (("delete", "books", "--filter", "{}"), 1, "--filter is empty, so it matches every point"),
        (("delete", "books", ".."), 1, "has a path segment"),
        (("set-payload", "books", "b1"), 2, "give --set, or --merge, --unset or both"),
        (("set-payload", "books", "--set", "{}"), 2, "give one of ids, --ids and --filter"),
        (("set-payload", "books", "b1", "--set", "{}", "--unset", "a"), 1, "set replaces the payload"),
        (("set-payload", "books", "b1", "--set", "[1]"), 1, "set"),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(vecstow, url, arguments, code, says):
    found, _, err = vecstow(*arguments)
    assert (found, says in err) == (code, True), err
    assert stored(url) == BOOKS


def test_a_change_waits_for_no_engine_that_is_away(vecstow, monkeypatch):
    """Patience is for an engine that is busy."""
    monkeypatch.setattr(selecting, "PATIENCE_SECONDS", 3600)
    code, _, err = vecstow("delete", "books", "b1", "--url", "http://127.0.0.1:9")
    assert code == 1
    assert "is an engine running there?" in err
