"""A status that the manager writes is kept as it was sent, so that it is written once."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.declaring import Document, Resources, declaring
from tests.operator.site import collection
from tests.unit.declared import OTHER_UID, engine_of, pod, state_of
from vecstow_operator.kube import Away, Changed, Cluster
from vecstow_operator.manager import status
from vecstow_operator.manager.assessment import assess
from vecstow_operator.manager.engines import EnginePod, EngineView
from vecstow_operator.observed import Observed, observed, report_on
from vecstow_operator.vocabulary import Condition, Reason

NOW = "2026-01-01T00:00:00Z"
SEED = 20
ORDERS = 40


def telling(reason: Reason) -> Callable[[Observed], EngineView]:
    """An engine whose sidecar found that."""

    def view(resource: Observed) -> EngineView:
        told = report_on(resource, reason, "so it is", "do this")
        return engine_of(pod(state_of(resource), reports={resource.uid: (told,)}))

    return view


VIEWS: dict[str, Callable[[Observed], EngineView]] = {
    "missing": lambda r: EngineView(r.engine),
    "scaled to zero": lambda r: engine_of(wanted_pods=0),
    "unreachable": lambda r: engine_of(EnginePod("vecstow-0", "p-1", problem="refused")),
    "not there yet": lambda r: engine_of(pod()),
    "empty": lambda r: engine_of(pod(state_of(r, collection_uid=None, vector_count=0, indexed=0))),
    "serving": lambda r: engine_of(pod(state_of(r))),
    "indexing": lambda r: engine_of(pod(state_of(r, vector_count=1000))),
    "degraded": lambda r: engine_of(pod(state_of(r, state="degraded", reason="1 point is withheld"))),
    "two pods": lambda r: engine_of(pod(state_of(r)), pod(state_of(r), name="vecstow-1")),
    "another pod": lambda r: engine_of(pod(state_of(r), name="vecstow-1")),
    "another incarnation": lambda r: engine_of(pod(state_of(r, collection_uid=OTHER_UID))),
    "long words": lambda r: engine_of(pod(state_of(r, state="quarantined", reason="é" * 100_000))),
    "in conflict": telling(Reason.CONFLICT),
    "without the data": telling(Reason.DATA_MISSING),
}
"""How an engine can be, as far as the status tells the difference."""


@dataclass(frozen=True)
class Written:
    """One resource, and the manager's hand on it."""

    resources: Resources
    name: str

    @property
    def now(self) -> Document:
        return self.resources.get(self.name)

    def apply(self, wanted: Document) -> bool:
        """As the manager does; whether that changed it."""
        cluster = Cluster(self.resources.namespace, self.resources.api)
        applied = cluster.apply_status(self.name, self.now["metadata"]["resourceVersion"], wanted)
        assert applied is None or applied == self.now
        return applied is not None

    def wanted(self, view: str) -> Document:
        """Return the status that the manager would write if the engine were so."""
        found = self.now
        resource = observed(found)
        assessment = assess(resource, VIEWS[view](resource))
        return status.build(resource, assessment, status.own(found["status"]), NOW)

    def is_kept(self, wanted: Document) -> None:
        """It comes back as it was sent, and sent again it changes nothing."""
        self.apply(wanted)
        assert self.now["status"] == wanted
        before = self.now
        assert self.apply(wanted) is False
        assert self.now == before


@pytest.fixture(scope="module")
def resources(cluster: ControlPlane) -> Iterator[Resources]:
    with declaring(cluster) as declared:
        yield declared


@pytest.fixture
def written(resources: Resources, request: pytest.FixtureRequest) -> Written:
    name = f"written-{abs(hash(request.node.name)):x}"
    resources.create(collection(name))
    return Written(resources, name)


def test_status_is_kept_as_it_was_sent_whatever_was_before(written: Written) -> None:
    # From each to each other, once.
    walk = [view for pair in itertools.combinations(VIEWS, 2) for view in pair] + list(VIEWS)[:1]
    for before, after in itertools.pairwise(walk):
        wanted = written.wanted(after)
        written.apply(wanted)
        assert written.now["status"] == wanted, (before, after)


@pytest.mark.parametrize("view", VIEWS)
def test_status_sent_again_changes_nothing(written: Written, view: str) -> None:
    written.is_kept(written.wanted(view))


def test_pause_is_kept_as_it_was_sent(resources: Resources) -> None:
    resources.create(collection("paused", paused=True))
    written = Written(resources, "paused")
    written.is_kept(written.wanted("missing"))


def test_lists_come_back_in_the_order_in_which_they_were_sent(written: Written) -> None:
    """Else what is wanted would never be what there is."""
    whole = written.wanted("serving")
    chance = random.Random(SEED)
    for _ in range(ORDERS):
        pods = [{"pod": f"vecstow-{number}", "state": chance.choice("ab")} for number in range(6)]
        written.is_kept(
            whole
            | {
                "conditions": chance.sample(whole["conditions"], chance.randint(1, len(Condition))),
                "replicas": chance.sample(pods, chance.randint(1, 6)),
            }
        )


def test_status_that_was_sent_changes_neither_spec_nor_generation(written: Written) -> None:
    before = written.now
    written.apply(written.wanted("serving"))
    assert written.now["spec"] == before["spec"]
    assert written.now["metadata"]["generation"] == 1


def test_conditions_of_others_stay_and_cost_nothing(written: Written) -> None:
    written.apply(written.wanted("serving"))
    foreign: dict[str, Any] = {
        "type": "Audited",
        "status": "True",
        "reason": "Done",
        "message": "",
        "lastTransitionTime": NOW,
    }
    written.resources.apply_status(written.name, {"conditions": [foreign]}, manager="auditor")
    assert written.wanted("serving") == status.own(written.now["status"])
    written.apply(written.wanted("not there yet"))
    assert foreign in written.now["status"]["conditions"]


def test_replica_that_another_wrote_stays_and_is_not_fought_over(written: Written) -> None:
    """As a restored backup leaves it."""
    written.resources.apply_status(written.name, {"replicas": [{"pod": "restored-0"}]}, manager="backup")
    wanted = written.wanted("serving")
    assert written.apply(wanted) is True
    assert written.apply(wanted) is False
    assert written.now["status"] != wanted


def test_status_of_what_changed_or_is_gone_is_not_written(written: Written) -> None:
    cluster = Cluster(written.resources.namespace, written.resources.api)
    before = written.now["metadata"]["resourceVersion"]
    wanted = written.wanted("serving")
    written.apply(written.wanted("empty"))
    with pytest.raises(Changed, match="409"):
        cluster.apply_status(written.name, before, wanted)
    with pytest.raises(Changed, match="404"):
        cluster.apply_status("never-there", before, wanted)


def test_status_of_a_newer_manager_is_refused_until_the_definition_knows_it(written: Written) -> None:
    before = written.now
    with pytest.raises(Away, match="500"):
        written.apply(written.wanted("serving") | {"novelty": 1})
    assert written.now == before
