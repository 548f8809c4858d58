"""The decision about one collection: a table of its resources, its folder, and the decision."""

from dataclasses import dataclass, replace

import pytest

from tests.unit.declared import HAD, OTHER_UID, OTHER_VOLUME, UID, VOLUME, claim, manifest_of
from vecstow_engine.model.manifest import IndexConfig, ManagedBy, PayloadIndex
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_operator.sidecar.decision import Decision, Folder, decide
from vecstow_operator.vocabulary import Reason

NEW = claim()
SERVED = claim(status=HAD)
"""A resource whose collection has vectors."""
EMPTY = manifest_of(NEW)
FILLED = manifest_of(NEW, UID)
ANEW = replace(EMPTY, created_at=NEW.created_at)
"""The manifest written for a lost one next to its data: the collection is no younger than its resource."""
RETAINED = replace(FILLED, managed_by=ManagedBy.API, resource_uid=None, generation=None)
REPLACE = {"vecstow.dev/replace": UID}
SHAPE = "5-Euclidean-Float32"
DROPPED_AT = "2026-02-02T00:00:00.000Z"
DAMAGED = Folder(problem="not valid JSON", has_data=True)
NEWER = Folder(problem="schema_version 3", is_newer=True, has_data=True)


def accepts(uid):
    return {"vecstow.dev/accept-empty": uid}


def holds(manifest, **changes):
    """A folder with data."""
    return Folder(replace(manifest, **changes), has_data=True)


def wrote(manifest, *findings, set_aside=False):
    return "writes", manifest, set_aside, findings


def left(*findings):
    return "leaves", None, False, findings


def dropped(*findings):
    return "drops", None, False, findings


def told(reason, uid="r-1"):
    return reason, uid


def outcome(decision: Decision):
    done = "drops" if decision.drop else "writes" if decision.write is not None else "leaves"
    findings = tuple((finding.reason, finding.resource_uid) for finding in decision.reports)
    return done, decision.write, decision.set_aside, findings


@dataclass
class Case:
    fact: str
    claims: list
    folder: Folder
    expected: tuple
    volume_id: str | None = VOLUME


CASES = [
    # What is declared, and what lies there
    Case("a new resource gets its manifest", [NEW], Folder(), wrote(EMPTY)),
    Case("a second apply changes nothing", [NEW], Folder(EMPTY), left()),
    Case("nor beside data", [SERVED], holds(FILLED), left()),
    Case(
        "a changed spec is written, the data's uid stays",
        [claim(generation=2, index={"efSearch": 90}, status=HAD)],
        holds(FILLED),
        wrote(replace(FILLED, generation=2, index_config=IndexConfig(ef_search=90))),
    ),
    Case(
        "a change of nothing that the manifest has still confirms the generation",
        [claim(generation=2, deletionPolicy="Delete")],
        Folder(EMPTY),
        wrote(replace(EMPTY, generation=2)),
    ),
    Case(
        "a resource rebuilt begins with its own generation",
        [claim(uid="r-2")],
        holds(FILLED, generation=9),
        wrote(replace(FILLED, resource_uid="r-2")),
    ),
    Case("nothing declared, nothing there", [], Folder(), left()),
    # Drift
    Case(
        "an edited setting is put right",
        [SERVED],
        holds(FILLED, index_config=IndexConfig(ef_search=1), owner="somebody"),
        wrote(FILLED),
    ),
    Case(
        "an edited payload index is put right",
        [SERVED],
        holds(FILLED, payload_indexes=(PayloadIndex("tenant", "keyword"),)),
        wrote(FILLED),
    ),
    Case("an edited shape is put right", [SERVED], holds(FILLED, dimension=9), wrote(FILLED)),
    Case("so is one of an empty collection", [NEW], Folder(replace(EMPTY, dimension=9)), wrote(EMPTY)),
    Case(
        "a manifest without its resource's uid gets it back",
        [SERVED],
        holds(FILLED, resource_uid=None),
        wrote(FILLED),
    ),
    Case(
        "even when its shape was edited too: the data's uid says whose it is",
        [SERVED],
        holds(FILLED, resource_uid=None, dimension=9),
        wrote(FILLED),
    ),
    Case(
        "and then a permission to replace drops nothing of its own",
        [claim(status=HAD, annotations=REPLACE)],
        holds(FILLED, resource_uid=None, dimension=9),
        wrote(FILLED),
    ),
    Case(
        "a manifest without the data's uid stays: the engine takes the one in the data",
        [SERVED],
        holds(EMPTY),
        left(),
    ),
    Case(
        "keys that nobody knows stay",
        [SERVED],
        holds(FILLED, owner="x", unknown={"later": 1}),
        wrote(replace(FILLED, unknown={"later": 1})),
    ),
    Case("a damaged manifest is set aside and written", [SERVED], DAMAGED, wrote(ANEW, set_aside=True)),
    *(
        Case(
            f"over data of another shape none is written: {fact}",
            [claim(annotations=REPLACE, status=status)],
            replace(folder, shape=(9, *NEW.declared.shape[1:])),
            left(told(Reason.CONFLICT)),
        )
        for fact, folder, status in [
            ("it is damaged", DAMAGED, None),
            ("it is gone", Folder(has_data=True), None),
            ("it had data before", DAMAGED, HAD),
        ]
    ),
    Case(
        "over data of its shape it is",
        [NEW],
        replace(DAMAGED, shape=NEW.declared.shape),
        wrote(EMPTY, set_aside=True),
    ),
    Case("a newer release's manifest is left", [SERVED], NEWER, left(told(Reason.NEWER_FORMAT))),
    Case("a manifest that is gone beside its data is written", [SERVED], Folder(has_data=True), wrote(ANEW)),
    # Data that is gone is not drift
    Case(
        "missing data is told, and the manifest has the uid that the engine must miss",
        [SERVED],
        Folder(),
        wrote(FILLED, told(Reason.DATA_MISSING)),
    ),
    Case(
        "missing data stays told while the manifest is right",
        [SERVED],
        Folder(FILLED),
        left(told(Reason.DATA_MISSING)),
    ),
    Case(
        "a manifest that lost the uid with the data gets it again",
        [SERVED],
        Folder(EMPTY),
        wrote(FILLED, told(Reason.DATA_MISSING)),
    ),
    Case(
        "data is missed by the manifest alone, before any status",
        [NEW],
        Folder(FILLED),
        left(told(Reason.DATA_MISSING)),
    ),
    Case(
        "another volume without the data is another reason",
        [SERVED],
        Folder(),
        wrote(FILLED, told(Reason.VOLUME_REPLACED)),
        volume_id=OTHER_VOLUME,
    ),
    Case(
        "so is one that no engine has named yet",
        [SERVED],
        Folder(),
        wrote(FILLED, told(Reason.VOLUME_REPLACED)),
        volume_id=None,
    ),
    Case("another volume with the data is fine", [SERVED], holds(FILLED), left(), volume_id=OTHER_VOLUME),
    Case(
        "another collection of that name on another volume hides no loss",
        [SERVED],
        holds(RETAINED, collection_uid=OTHER_UID),
        left(told(Reason.VOLUME_REPLACED)),
        volume_id=OTHER_VOLUME,
    ),
    Case(
        "nor does one that was taken over in spite of it",
        [SERVED],
        holds(FILLED, collection_uid=OTHER_UID, owner="x"),
        wrote(replace(FILLED, collection_uid=OTHER_UID), told(Reason.VOLUME_REPLACED)),
        volume_id=OTHER_VOLUME,
    ),
    Case(
        "on the same volume it is taken over",
        [SERVED],
        holds(RETAINED, collection_uid=OTHER_UID),
        wrote(replace(FILLED, collection_uid=OTHER_UID)),
    ),
    Case(
        "so it is where the loss is accepted",
        [claim(status=HAD, annotations=accepts(UID))],
        holds(RETAINED, collection_uid=OTHER_UID),
        wrote(replace(FILLED, collection_uid=OTHER_UID)),
        volume_id=OTHER_VOLUME,
    ),
    Case(
        "an accepted loss begins again",
        [claim(status=HAD, annotations=accepts(UID))],
        Folder(FILLED),
        wrote(EMPTY),
    ),
    Case(
        "so on a new volume",
        [claim(status=HAD, annotations=accepts(UID))],
        Folder(),
        wrote(EMPTY),
        volume_id=OTHER_VOLUME,
    ),
    Case(
        "an acceptance of an earlier loss does not count",
        [claim(status=HAD, annotations=accepts(OTHER_UID))],
        Folder(),
        wrote(FILLED, told(Reason.DATA_MISSING)),
    ),
    Case(
        "an acceptance throws no data away",
        [claim(status=HAD, annotations=accepts(UID))],
        holds(FILLED),
        left(),
    ),
    Case(
        "a repaired collection has another uid, and misses nothing",
        [SERVED],
        holds(FILLED, collection_uid=OTHER_UID),
        left(),
    ),
    Case(
        "of a repaired one that is gone its own uid is missed",
        [SERVED],
        Folder(replace(FILLED, collection_uid=OTHER_UID)),
        left(told(Reason.DATA_MISSING)),
    ),
    # Whose it is
    Case(
        "one made over REST is adopted",
        [NEW],
        holds(RETAINED, unknown={"later": 1}),
        wrote(replace(FILLED, unknown={"later": 1})),
    ),
    Case("so is one declared in a file", [NEW], holds(RETAINED, managed_by=ManagedBy.FILE), wrote(FILLED)),
    Case(
        "so is one whose owner is gone",
        [claim(uid="r-2")],
        holds(FILLED),
        wrote(replace(FILLED, resource_uid="r-2")),
    ),
    *(
        Case(f"another {name} is a conflict", [NEW], holds(RETAINED, **shape), left(told(Reason.CONFLICT)))
        for name, shape in {
            "dimension": {"dimension": 5},
            "metric": {"distance_metric": DistanceMetric.COSINE},
            "vector type": {"vector_type": VectorType.INT8},
        }.items()
    ),
    Case(
        "with leave to replace it the other one is dropped first",
        [claim(annotations=REPLACE)],
        holds(RETAINED, dimension=5),
        dropped(),
    ),
    Case(
        "an empty one is named by its shape",
        [claim(annotations={"vecstow.dev/replace": SHAPE})],
        Folder(replace(RETAINED, collection_uid=None, dimension=5)),
        dropped(),
    ),
    *(
        Case(
            f"leave for {fact} replaces nothing",
            [claim(annotations={"vecstow.dev/replace": value})],
            holds(RETAINED, dimension=5),
            left(told(Reason.CONFLICT)),
        )
        for fact, value in {
            "whatever there is": "true",
            "another collection": OTHER_UID,
            "an empty collection of the shape": SHAPE,
        }.items()
    ),
    *(
        Case(
            f"nothing is replaced {fact}",
            [claim(annotations={"vecstow.dev/replace": OTHER_UID}, status=HAD)],
            holds(RETAINED, dimension=5, collection_uid=OTHER_UID),
            left(told(reason)),
            volume_id=volume_id,
        )
        for fact, volume_id, reason in [
            ("on another volume than the resource's own data was on", OTHER_VOLUME, Reason.VOLUME_REPLACED),
            ("while the resource's own data is missing", VOLUME, Reason.DATA_MISSING),
        ]
    ),
    Case(
        "nothing is replaced on a volume without an id",
        [claim(annotations=REPLACE)],
        holds(RETAINED, dimension=5),
        left(told(Reason.CONFLICT)),
        volume_id=None,
    ),
    Case(
        "on another volume the loss is accepted first, and then it is replaced",
        [claim(annotations={"vecstow.dev/replace": OTHER_UID} | accepts(UID), status=HAD)],
        holds(RETAINED, dimension=5, collection_uid=OTHER_UID),
        dropped(),
        volume_id=OTHER_VOLUME,
    ),
    Case(
        "of the same shape nothing is dropped",
        [claim(annotations=REPLACE)],
        holds(RETAINED),
        wrote(FILLED),
    ),
    Case(
        "what is marked as dropped is left until the engine has moved it",
        [NEW],
        holds(RETAINED, dropped_at=DROPPED_AT),
        left(),
    ),
    Case(
        "the living owner wins over an older resource",
        [claim("older", "r-0", created_at="2025-01-01T00:00:00Z", collectionName="notes"), SERVED],
        holds(FILLED),
        left(told(Reason.CONFLICT, "r-0")),
    ),
    Case(
        "without an owner the oldest wins",
        [claim("younger", "r-0", created_at="2026-01-02T00:00:00Z", collectionName="notes"), NEW],
        Folder(),
        wrote(EMPTY, told(Reason.CONFLICT, "r-0")),
    ),
    Case(
        "of two of one second the same wins each time",
        [claim("second", "r-2", collectionName="notes"), NEW],
        Folder(),
        wrote(EMPTY, told(Reason.CONFLICT, "r-2")),
    ),
    Case(
        "the older one does not inherit by a manifest that is lost",
        [claim("older", "r-0", collectionName="notes"), SERVED],
        Folder(has_data=True),
        wrote(ANEW, told(Reason.CONFLICT, "r-0")),
    ),
    Case(
        "nor begin again, empty, what is missing to another",
        [claim("older", "r-0", collectionName="notes"), SERVED],
        Folder(),
        wrote(FILLED, told(Reason.DATA_MISSING), told(Reason.CONFLICT, "r-0")),
    ),
    Case(
        "one that is being deleted does not take a free name",
        [claim(created_at="2025-01-01T00:00:00Z", is_deleting=True), claim(uid="r-2")],
        Folder(),
        wrote(replace(EMPTY, resource_uid="r-2"), told(Reason.DELETING)),
    ),
    Case(
        "the loser is told, though the winner is paused",
        [
            claim("other", "r-2", created_at="2026-01-02T00:00:00Z", collectionName="notes"),
            claim(paused=True),
        ],
        Folder(EMPTY),
        left(told(Reason.CONFLICT, "r-2")),
    ),
    Case(
        "a loser that is deleted takes nothing with it",
        [SERVED, claim("other", "r-2", is_deleting=True, collectionName="notes", deletionPolicy="Delete")],
        holds(FILLED),
        left(told(Reason.DELETING, "r-2")),
    ),
    # The end
    Case(
        "Retain gives the collection back to REST",
        [claim(is_deleting=True, status=HAD)],
        holds(FILLED),
        wrote(RETAINED, told(Reason.DELETING)),
    ),
    Case(
        "Delete marks it as dropped, and says nothing before it is moved away",
        [claim(is_deleting=True, deletionPolicy="Delete", status=HAD)],
        holds(FILLED),
        dropped(),
    ),
    Case(
        "the policy that it has at the end decides",
        [claim(is_deleting=True, generation=5, deletionPolicy="Retain", has_finalizer=True)],
        holds(FILLED),
        wrote(RETAINED, told(Reason.DELETING)),
    ),
    Case(
        "the mark is set once",
        [claim(is_deleting=True, deletionPolicy="Delete")],
        holds(FILLED, dropped_at=DROPPED_AT),
        left(),
    ),
    Case(
        "a policy that changes after the drop comes too late, and nothing is said to be retained",
        [claim(is_deleting=True, generation=5, deletionPolicy="Retain", has_finalizer=True)],
        holds(FILLED, dropped_at=DROPPED_AT),
        left(),
    ),
    Case(
        "when it is moved away the resource may go",
        [claim(is_deleting=True, deletionPolicy="Delete", status=HAD)],
        Folder(),
        left(told(Reason.DELETING)),
    ),
    Case(
        "another's collection is not dropped",
        [claim(is_deleting=True, deletionPolicy="Delete")],
        holds(FILLED, resource_uid="r-9"),
        left(told(Reason.DELETING)),
    ),
    Case(
        "nor one of REST",
        [claim(is_deleting=True, deletionPolicy="Delete")],
        holds(RETAINED),
        left(told(Reason.DELETING)),
    ),
    Case(
        "its own under a damaged manifest is written first, to be dropped next",
        [claim(is_deleting=True, deletionPolicy="Delete", status=HAD)],
        DAMAGED,
        wrote(ANEW, set_aside=True),
    ),
    Case(
        "so without a manifest",
        [claim(is_deleting=True, deletionPolicy="Delete", status=HAD)],
        Folder(has_data=True),
        wrote(ANEW),
    ),
    Case(
        "one that never had data has none to drop there",
        [claim(is_deleting=True, deletionPolicy="Delete")],
        Folder(has_data=True),
        left(told(Reason.DELETING)),
    ),
    Case(
        "under a newer release's manifest it waits",
        [claim(is_deleting=True, deletionPolicy="Delete", status=HAD)],
        NEWER,
        left(told(Reason.NEWER_FORMAT)),
    ),
    Case(
        "an invalid resource can be deleted",
        [claim(is_deleting=True, dimension=0, deletionPolicy="Delete")],
        holds(FILLED),
        dropped(),
    ),
    # Left alone
    Case("paused: nothing is written", [claim(paused=True)], Folder(), left()),
    Case("paused: drift stays", [claim(paused=True)], holds(FILLED, owner="x"), left()),
    Case(
        "paused: nothing is dropped",
        [claim(paused=True, is_deleting=True, deletionPolicy="Delete")],
        holds(FILLED),
        left(),
    ),
    Case(
        "paused, with nothing of its own: it may go",
        [claim(paused=True, is_deleting=True, deletionPolicy="Delete")],
        Folder(),
        left(told(Reason.DELETING)),
    ),
    Case("invalid: told, and nothing is changed", [claim(dimension=0)], Folder(), left(told(Reason.INVALID))),
    *(
        Case(f"what a newer definition adds {where} changes nothing", [claim(**later)], holds(FILLED), left())
        for where, later in {
            "to the spec": {"compression": "none"},
            "to the index": {"index": {"efSearch": 50, "heuristic": True}},
        }.items()
    ),
    Case(
        "nor what it adds to a payload index",
        [claim(payloadIndexes=[{"field": "tenant", "type": "keyword", "unique": False}])],
        holds(FILLED, payload_indexes=(PayloadIndex("tenant", "keyword"),)),
        left(),
    ),
    # No resource
    Case("without a resource it is REST's", [], holds(FILLED), wrote(RETAINED)),
    Case("what is REST's stays so", [], holds(RETAINED), left()),
    Case("so does what a file declared", [], holds(RETAINED, managed_by=ManagedBy.FILE), left()),
    Case("a dropped one stays dropped", [], holds(FILLED, dropped_at=DROPPED_AT), left()),
    Case("a damaged one of nobody is left", [], DAMAGED, left()),
]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.fact) for case in CASES])
def test_decision(case):
    assert outcome(decide(case.claims, case.folder, case.volume_id)) == case.expected


@pytest.mark.parametrize("case", [pytest.param(case, id=case.fact) for case in CASES])
def test_order_of_a_list_does_not_matter(case):
    in_order = decide(case.claims, case.folder, case.volume_id)
    assert decide(case.claims[::-1], case.folder, case.volume_id) == in_order


@pytest.mark.parametrize("case", [pytest.param(case, id=case.fact) for case in CASES])
def test_what_is_written_is_right_then(case):
    """A second pass over its own work changes nothing, but for a deletion that it prepared."""
    first = decide(case.claims, case.folder, case.volume_id)
    there = first.write or case.folder.manifest
    if first.drop and there is not None:
        there = replace(there, dropped_at=DROPPED_AT)
    folder = replace(case.folder, manifest=there, problem=None) if first.changes else case.folder
    again = decide(case.claims, folder, case.volume_id)
    assert not again.changes or (case.claims[0].is_deleting and again.drop)


def message_of(resource, folder, volume_id=VOLUME):
    [finding] = decide([resource], folder, volume_id).reports
    return finding.message, finding.hint


def test_missing_data_says_how_much_it_was_and_what_to_type():
    assert message_of(SERVED, Folder()) == (
        "the data of collection 'notes' (7 vectors) is not on this volume",
        'bring the volume back (docs/operations.md, "The volume of before"); '
        "or, to begin without the vectors: kubectl annotate vcol --overwrite notes "
        f"vecstow.dev/accept-empty={UID}",
    )


def test_replaced_volume_is_named():
    message, _ = message_of(SERVED, Folder(), OTHER_VOLUME)
    assert message == (
        f"the data of collection 'notes' (7 vectors) is not on this volume: it was on volume {VOLUME}"
    )


def test_of_data_that_no_status_counted_no_count_is_told():
    message, _ = message_of(NEW, Folder(FILLED))
    assert message == "the data of collection 'notes' is not on this volume"


def test_conflict_of_shapes_names_both_and_the_way_out():
    assert message_of(NEW, holds(RETAINED, dimension=5)) == (
        "collection 'notes' is there with another shape: 5, Euclidean, Float32; "
        "wanted is 4, Euclidean, Float32",
        f"to have it moved to .deleted/: kubectl annotate vcol --overwrite notes vecstow.dev/replace={UID}",
    )


def test_conflict_with_data_that_lost_its_manifest_names_another_way_out():
    message, hint = message_of(NEW, replace(DAMAGED, shape=(9, *NEW.declared.shape[1:])))
    assert message.endswith("another shape: 9, Euclidean, Float32; wanted is 4, Euclidean, Float32")
    assert hint == "its manifest is lost: kubectl vecstow repair notes writes it again"


def test_loser_is_told_who_has_the_name():
    rival = claim("rival", "r-2", created_at="2026-01-02T00:00:00Z", collectionName="notes")
    [finding] = decide([NEW, rival], Folder(EMPTY), VOLUME).reports
    assert finding.document() == {
        "collection": "notes",
        "resource_uid": "r-2",
        "reason": "Conflict",
        "message": "collection 'notes' belongs to the resource 'notes'",
        "hint": "delete one of the two: kubectl delete vcol rival",
    }


@pytest.mark.parametrize(
    ("resource", "folder", "told"),
    [
        pytest.param(SERVED, holds(FILLED, owner="x", dimension=9), "dimension, owner", id="edited"),
        pytest.param(SERVED, holds(FILLED, resource_uid=None), "resource_uid", id="of nobody"),
        pytest.param(SERVED, Folder(has_data=True), "was gone next to its data", id="removed"),
        pytest.param(SERVED, holds(FILLED), None, id="as it should be"),
        pytest.param(NEW, Folder(), None, id="new"),
        pytest.param(SERVED, DAMAGED, None, id="damaged: that is told otherwise"),
        pytest.param(claim(generation=2, owner="me", status=HAD), holds(FILLED), None, id="a changed spec"),
        pytest.param(claim(uid="r-2"), holds(RETAINED, owner="x"), None, id="taken over"),
    ],
)
def test_drift_that_is_put_right_is_reported(resource, folder, told):
    reverted = decide([resource], folder, VOLUME).reverted
    assert (reverted is None) if told is None else (told in reverted.message)
