"""What is seen of engines: their StatefulSets, their pods, and what these answer."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from vecstow_operator.manager.asking import Address, Asking, engine_views, stays
from vecstow_operator.manager.engines import EnginePod
from vecstow_operator.plugin.survey import asked
from vecstow_operator.vocabulary import Label


def of_engine(kind, **fields):
    metadata = SimpleNamespace(labels={Label.ENGINE.value: "vecstow"}, **kind)
    return SimpleNamespace(metadata=metadata, **fields)


STATEFUL_SET = of_engine({}, spec=SimpleNamespace(replicas=1))
POD = of_engine({"deletion_timestamp": None})
ENDING = of_engine({"deletion_timestamp": "2026-02-01T00:00:00Z"})
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
    answers = [("vecstow", ANSWER) for pod in pods if stays(pod)]
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
    assert asked(proxy, "p-1", []).problem.startswith("its answer is not understood: ")


@pytest.mark.parametrize(
    ("ip", "url"),
    [
        pytest.param("10.0.0.7", "http://10.0.0.7:3030/state", id="IPv4"),
        pytest.param("fd00::7", "http://[fd00::7]:3030/state", id="IPv6"),
    ],
)
def test_pod_is_asked_at_its_address(ip, url):
    assert Address("vecstow-0", "p-1", "vecstow", ip, 3030).url == url


class Engine(BaseHTTPRequestHandler):
    """Answers as one pod of an engine, with an ETag."""

    document: dict[str, object]
    answers: list[int]

    def do_GET(self):
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
    """What answers at `port`, as `document` says, and the status of each answer."""
    handler = type("Handler", (Engine,), {"document": STATE, "answers": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        handler.port = server.server_port
        yield handler
        server.shutdown()


@pytest.fixture
def ask(engine):
    """Ask once; what comes is the one pod as it is seen."""
    asking = Asking()
    port = SimpleNamespace(name="http", container_port=engine.port)
    pod = of_engine(
        {"deletion_timestamp": None, "name": "vecstow-0", "uid": "p-1"},
        spec=SimpleNamespace(containers=[SimpleNamespace(name="engine", ports=[port])]),
        status=SimpleNamespace(pod_ip="127.0.0.1"),
    )
    yield lambda: asking.views([STATEFUL_SET], [pod])["vecstow"].pods[0]
    asking.close()


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
