"""Observations of engines: their StatefulSets, their pods, and the answers of these."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from vecstow_operator.keys import EngineKey
from vecstow_operator.manager import state_poller
from vecstow_operator.manager.engines import EnginePod
from vecstow_operator.manager.state_poller import (
    KEY_BACKOFF,
    ROUTED_SECONDS,
    Address,
    StatePoller,
    addresses_of,
    engine_views,
)
from vecstow_operator.plugin import session
from vecstow_operator.plugin.session import EngineProxy, NoAnswer, pod_state
from vecstow_operator.vocabulary import Label


def of_engine(kind, **fields):
    metadata = SimpleNamespace(labels={Label.ENGINE.value: "vecstow"}, **kind)
    return SimpleNamespace(metadata=metadata, **fields)


def owner(**changes):
    """A reference to the StatefulSet, as its controller writes it."""
    return SimpleNamespace(**{"kind": "StatefulSet", "uid": "s-1", "controller": True} | changes)


def engine_pod(*, port=3030, ready="True", **changes):
    """A pod as the engine's StatefulSet makes it."""
    ports = [SimpleNamespace(name="http", container_port=port)]
    metadata = {"name": "vecstow-0", "uid": "p-1", "deletion_timestamp": None, "owner_references": [owner()]}
    return of_engine(
        metadata | changes,
        spec=SimpleNamespace(containers=[SimpleNamespace(name="engine", ports=ports)]),
        status=SimpleNamespace(pod_ip="127.0.0.1", conditions=[SimpleNamespace(type="Ready", status=ready)]),
    )


STATEFUL_SET = of_engine({"name": "vecstow", "uid": "s-1"}, spec=SimpleNamespace(replicas=1))
POD = engine_pod()
ENDING = engine_pod(deletion_timestamp="2026-02-01T00:00:00Z")
ANSWER = EnginePod("vecstow-0", "p-1")


@pytest.mark.parametrize(
    ("stateful_sets", "pods", "expected"),
    [
        pytest.param([STATEFUL_SET], [POD], (1, (ANSWER,)), id="a pod"),
        pytest.param([STATEFUL_SET], [], (1, ()), id="no pod yet"),
        pytest.param([], [POD], (0, (ANSWER,)), id="a pod alone"),
        pytest.param([], [ENDING], (0, ()), id="an ending pod alone is an engine still"),
        pytest.param([], [], None, id="nothing"),
    ],
)
def test_engine_is_there_as_long_as_anything_of_it_is(stateful_sets, pods, expected):
    answers = [("vecstow", ANSWER) for _ in addresses_of(stateful_sets, pods)]
    view = engine_views(stateful_sets, pods, answers).get("vecstow")
    assert (view and (view.wanted_pods, view.pods)) == expected


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(None, id="nothing"),
        pytest.param([], id="a list"),
        pytest.param({"volume_id": "v", "findings": None}, id="another version's"),
    ],
)
def test_pod_whose_answer_the_plugin_does_not_understand_hides_no_other(answer):
    proxy = SimpleNamespace(pod="vecstow-0", call=lambda *_, **__: answer)
    assert pod_state(proxy, "p-1", []).problem.startswith("its answer is not understood: ")


@pytest.mark.parametrize(
    ("ip", "url"),
    [
        pytest.param("10.0.0.7", "http://10.0.0.7:3030/state", id="IPv4"),
        pytest.param("fd00::7", "http://[fd00::7]:3030/state", id="IPv6"),
    ],
)
def test_pod_is_asked_at_its_address(ip, url):
    assert Address("vecstow-0", "p-1", "vecstow", ip, 3030, is_owned=True).url == url


class Engine(BaseHTTPRequestHandler):
    """Answers as one pod of an engine, with an ETag."""

    document: dict[str, object]
    answers: list[int]
    keys: frozenset[str] | None = None
    """Those that it takes; None: it asks for none."""

    def do_GET(self):
        if self.keys is not None and self.headers["api-key"] not in self.keys:
            self.answers.append(401)
            self.send_error(401)
            return
        content = json.dumps({"data": self.document}).encode()
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        status = 304 if self.headers["If-None-Match"] == etag else 200
        self.answers.append(status)
        self.send_response(status)
        self.send_header("ETag", etag)
        if status == 200:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if status == 200:
            self.wfile.write(content)

    def log_message(self, format, *args):
        """Nothing."""


STATE = {"engine": "vecstow", "pod_uid": "p-1", "volume_id": "v", "findings": None, "collections": []}


@pytest.fixture
def engine():
    """A server at `port` that answers with `document`, and records the status of each answer."""
    handler = type("Handler", (Engine,), {"document": STATE, "answers": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        handler.port = server.server_port
        yield handler
        server.shutdown()


@pytest.fixture
def ask(engine):
    """Ask once; what comes is the one pod as it is seen."""
    asking = StatePoller()
    pod = engine_pod(port=engine.port)
    yield lambda: asking.views([STATEFUL_SET], [pod])["vecstow"].pods[0]
    asking.close()


IMPOSTORS = [
    pytest.param({"owner_references": None}, id="made by a person"),
    pytest.param({"owner_references": [owner(uid="s-0")]}, id="of an earlier StatefulSet"),
    pytest.param({"owner_references": [owner(controller=None)]}, id="owned, but not controlled"),
    pytest.param({"owner_references": [owner(kind="ReplicaSet")]}, id="of another kind of owner"),
    pytest.param({"name": "other-0"}, id="a reference that its creator wrote, and another name"),
]


@pytest.mark.parametrize("changes", IMPOSTORS)
def test_pod_that_only_carries_the_label_is_sent_no_key(engine, changes):
    asking = StatePoller()
    try:
        views = asking.views([STATEFUL_SET], [engine_pod(port=engine.port, **changes)])
    finally:
        asking.close()
    assert engine.answers == []
    assert views["vecstow"].pods == ()


def test_pod_whose_stateful_set_is_away_is_listed_and_sent_no_key(engine):
    """`kubectl delete --cascade=orphan` leaves the pod, until the next StatefulSet adopts it."""
    asking = StatePoller()
    try:
        [seen] = asking.views([], [engine_pod(port=engine.port, owner_references=None)])["vecstow"].pods
    finally:
        asking.close()
    assert engine.answers == []
    assert seen.problem == "no StatefulSet of its engine owns it, so it is not asked"


@pytest.mark.parametrize("changes", IMPOSTORS)
def test_the_plugin_takes_the_pod_that_the_stateful_set_owns(monkeypatch, changes):
    """A name that sorts first gains nothing."""
    asked_pods = []

    def call(proxy, *_, **__):
        asked_pods.append(proxy.pod)
        raise NoAnswer("away")

    impostor = engine_pod(**({"name": "a-0", "uid": "p-0"} | changes))
    cluster = SimpleNamespace(
        resources=list, stateful_sets=lambda: [STATEFUL_SET], pods=lambda: [impostor, POD]
    )
    monkeypatch.setattr(EngineProxy, "call", call)
    monkeypatch.setattr(session, "Cluster", lambda *_: cluster)
    found = session.survey(None, "apps", EngineKey())
    assert asked_pods == [found.proxies["vecstow"].pod] == ["vecstow-0"]


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        pytest.param({"pod_uid": "p-2"}, "engine 'vecstow' of pod 'p-2' answers there", id="a later pod"),
        pytest.param({"engine": "else"}, "engine 'else' of pod 'p-1' answers there", id="another engine"),
        pytest.param({"pod_uid": None}, "engine 'vecstow' of pod None answers there", id="of no pod"),
    ],
)
def test_address_that_is_anothers_by_now_says_nothing_of_the_pod(engine, ask, other, problem):
    engine.document = STATE | other
    seen = ask()
    assert seen.state is None
    assert problem in seen.problem


def test_unchanged_state_is_not_sent_again(engine, ask):
    first, second = ask(), ask()
    assert engine.answers == [200, 304]
    assert first.state is not None
    assert second.state is first.state
    engine.document = STATE | {"volume_id": "w"}
    assert ask().state.volume_id == "w"
    assert engine.answers == [200, 304, 200]


def test_answer_of_another_is_not_remembered(engine, ask):
    """It would be taken for the pod's own as long as it stays the same."""
    engine.document = STATE | {"pod_uid": "p-2"}
    assert [ask().state, ask().state] == [None, None]
    assert engine.answers == [200, 200]


# Keys ------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Seconds, as the manager sees them."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(state_poller, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


@pytest.fixture
def keyed(engine, tmp_path):
    """An engine that asks for a key, and the file that the manager reads one from."""
    engine.keys = frozenset({"right"})
    file = tmp_path / "manager"
    file.write_text("wrong")
    manager = StatePoller(EngineKey(file))
    pod = engine_pod(port=engine.port)
    ask = lambda: manager.views([STATEFUL_SET], [pod])["vecstow"].pods[0]  # noqa: E731
    yield SimpleNamespace(ask=ask, file=file, engine=engine)
    manager.close()


def test_refused_key_is_named_and_tried_ever_more_rarely(keyed, clock):
    for _ in range(100):
        found = keyed.ask()
        assert (found.refuses_key, found.problem) == (
            True, f"it says 401 to the manager's key (file {keyed.file})",
        )  # fmt: skip
        clock.seconds += 2
    pauses = 4 + 8 + 16 + 30 * 5
    assert pauses < 200
    assert len(keyed.engine.answers) == 9


def test_another_key_is_tried_at_once(keyed, clock):
    assert keyed.ask().refuses_key
    keyed.file.write_text("right")
    assert keyed.ask().state is not None


def test_engine_that_takes_the_key_in_the_end_is_asked_again(keyed, clock):
    assert keyed.ask().refuses_key
    keyed.engine.keys = frozenset({"wrong"})
    assert keyed.ask().refuses_key
    clock.seconds += KEY_BACKOFF.first_seconds
    assert keyed.ask().state is not None


def test_key_that_cannot_be_read_is_no_outage(keyed, clock):
    keyed.file.unlink()
    found = keyed.ask()
    assert found.refuses_key
    assert found.problem.startswith(f"key file {keyed.file} cannot be read")


def test_source_of_the_key_is_what_the_chart_calls_it(keyed, clock, monkeypatch):
    monkeypatch.setenv("VECSTOW_KEY_SOURCE", 'entry "manager" of Secret vecstow-keys')
    assert keyed.ask().problem == 'it says 401 to the manager\'s key (entry "manager" of Secret vecstow-keys)'


# What Services send to -------------------------------------------------------------------------------------


def test_pod_is_routed_once_it_has_been_ready_for_a_moment(engine, clock):
    manager = StatePoller()
    look = lambda ready: manager.views(  # noqa: E731
        [STATEFUL_SET], [engine_pod(port=engine.port, ready=ready)]
    )["vecstow"].pods[0].is_routed  # fmt: skip
    assert not look("False")
    assert not look("True")
    clock.seconds += ROUTED_SECONDS
    assert look("True")
    assert not look("False")
    assert not look("True")
    manager.close()


def test_pod_that_is_ready_when_the_manager_starts_is_routed(ask):
    assert ask().is_routed
