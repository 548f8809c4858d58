"""What is seen of engines: their StatefulSets, their pods, and what these answer."""

from types import SimpleNamespace

import pytest

from vecstow_operator.manager.asking import Address, engine_views, stays
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
    assert asked(proxy, "p-1").problem.startswith("its answer is not understood: ")


@pytest.mark.parametrize(
    ("ip", "url"),
    [
        pytest.param("10.0.0.7", "http://10.0.0.7:3030/state", id="IPv4"),
        pytest.param("fd00::7", "http://[fd00::7]:3030/state", id="IPv6"),
    ],
)
def test_pod_is_asked_at_its_address(ip, url):
    assert Address("vecstow-0", "p-1", "vecstow", ip, 3030).url == url
