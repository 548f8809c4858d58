"""How one resource stands, by what its engine's pods say."""

import dataclasses

import pytest

from tests.unit.declared import (
    HAD,
    OTHER_UID,
    OTHER_VOLUME,
    UID,
    VOLUME,
    claim,
    engine_of,
    pod,
    report,
    state_of,
)
from vecstow_operator.kube import NOT_UNDERSTOOD
from vecstow_operator.manager.assessment import assess, is_released
from vecstow_operator.manager.engines import CollectionState, EnginePod, EngineView, parse_state
from vecstow_operator.observed import Known, Loss
from vecstow_operator.vocabulary import Reason

RESOURCE = claim(generation=3, status=HAD)
SERVED = state_of(RESOURCE)
SILENT = EnginePod("vecstow-0", "p-1", problem="connection refused")
MISSING = EngineView("vecstow")
GONE_ENGINE = EngineView("vecstow", is_gone=True)
SCALED_DOWN = engine_of(wanted_pods=0)
DELETING = claim(generation=3, status=HAD, is_deleting=True, has_finalizer=True, deletionPolicy="Delete")


def row(**changes):
    return dataclasses.replace(SERVED, **changes)


def telling(*reasons, rows=(SERVED,), uid="r-1", **state):
    """An engine whose sidecar says this of the resource."""
    told = {uid: tuple(report(reason, f"because of {reason}", "do this") for reason in reasons)}
    return engine_of(pod(*rows, reports=told, **state))


def extra(*rows):
    """A second pod next to one that serves."""
    return engine_of(pod(SERVED), pod(*rows, name="vecstow-1"), wanted_pods=2)


@pytest.mark.parametrize(
    ("engine", "reason", "message"),
    [
        pytest.param(engine_of(pod(SERVED)), Reason.SERVED, "served by vecstow", id="served"),
        pytest.param(
            engine_of(pod(row(state="degraded", reason="1 point is withheld"))),
            Reason.SERVED, "served by vecstow", id="degraded is served",
        ),
        pytest.param(
            MISSING, Reason.ENGINE_MISSING, "no engine 'vecstow' is in this namespace", id="no engine"
        ),
        pytest.param(
            SCALED_DOWN, Reason.ENGINE_SCALED_DOWN, "engine 'vecstow' is scaled to zero", id="scaled to zero"
        ),
        pytest.param(
            engine_of(), Reason.ENGINE_UNREACHABLE, "engine 'vecstow' has no pod yet", id="no pod yet"
        ),
        pytest.param(
            engine_of(SILENT), Reason.ENGINE_UNREACHABLE,
            "pod vecstow-0 does not answer: connection refused", id="a pod that does not answer",
        ),
        pytest.param(
            engine_of(pod()), Reason.PENDING,
            "pod vecstow-0 does not follow generation 3 yet", id="not there yet",
        ),
        pytest.param(
            engine_of(pod(row(generation=2))), Reason.PENDING,
            "pod vecstow-0 does not follow generation 3 yet", id="an earlier generation",
        ),
        pytest.param(
            engine_of(pod(row(generation=4))), Reason.PENDING,
            "pod vecstow-0 does not follow generation 3 yet", id="a later generation, which is another's",
        ),
        pytest.param(
            engine_of(pod(row(resource_uid="r-0"))), Reason.PENDING,
            "pod vecstow-0 does not follow generation 3 yet", id="the generation of another uid",
        ),
        pytest.param(
            engine_of(pod(row(resource_uid=None))), Reason.PENDING,
            "pod vecstow-0 does not follow generation 3 yet", id="one of REST",
        ),
        pytest.param(
            engine_of(EnginePod("vecstow-0", "p-0", problem="it says 401", refuses_key=True)),
            Reason.KEY_REFUSED,
            "pod vecstow-0 cannot be asked: it says 401; the engine must know it with the role monitor: "
            'docs/operations.md, "Keys"', id="a wrong key",
        ),
        pytest.param(
            engine_of(pod(row(generation=2), is_unsupervised=True)), Reason.SIDECAR_SILENT,
            "no sidecar reports to the engine of pod vecstow-0: conflicts, drift and lost data are not "
            "found; "
            "kubectl logs vecstow-0 --container sidecar says why; a key of the role sidecar may be wrong",
            id="no sidecar",
        ),
        pytest.param(
            engine_of(dataclasses.replace(pod(SERVED), is_routed=False)), Reason.ENGINE_NOT_READY,
            "pod vecstow-0 serves it, and no Service sends to the pod yet", id="a pod that is not ready",
        ),
        pytest.param(
            engine_of(pod(row(state="recovering", reason=None))), Reason.RECOVERING,
            "the collection is recovering", id="recovering",
        ),
        pytest.param(
            engine_of(pod(row(state="read_only", reason="a sync failed"))), Reason.READ_ONLY,
            "a sync failed", id="read-only",
        ),
        pytest.param(
            engine_of(pod(row(state="quarantined", reason="vectors.bin at byte 0"))), Reason.QUARANTINED,
            "vectors.bin at byte 0; kubectl vecstow repair notes --dry-run", id="quarantined",
        ),
        pytest.param(
            engine_of(pod(row(state="foreign", reason="d-vecDB's"))), Reason.FOREIGN,
            "d-vecDB's", id="foreign",
        ),
        pytest.param(
            engine_of(pod(row(state="upgrading", reason=None))), Reason.PENDING,
            "the collection is upgrading", id="a later engine's state is not taken for ready",
        ),
        pytest.param(
            engine_of(pod(row(collection_uid=None, vector_count=0))), Reason.DATA_MISSING,
            "pod vecstow-0 has none of the 7 vectors", id="served empty, though it had vectors",
        ),
        pytest.param(
            engine_of(pod(row(collection_uid=OTHER_UID))), Reason.SERVED,
            "served by vecstow", id="repaired, with another uid",
        ),
        pytest.param(
            engine_of(pod(row(collection_uid=OTHER_UID), volume_id=OTHER_VOLUME)), Reason.VOLUME_REPLACED,
            f"pod vecstow-0 has another collection of that name; the 7 vectors were on volume {VOLUME}",
            id="another collection, on another volume",
        ),
        pytest.param(
            engine_of(pod(SERVED, volume_id=OTHER_VOLUME)), Reason.SERVED,
            "served by vecstow", id="the same on another volume, as a copy is",
        ),
        *(
            pytest.param(telling(reason), reason, f"because of {reason}; do this", id=f"told {reason}")
            for reason in (
                Reason.CONFLICT, Reason.INVALID, Reason.NEWER_FORMAT, Reason.STORAGE_FAILED,
                Reason.DATA_MISSING, Reason.VOLUME_REPLACED,
            )
        ),
        pytest.param(
            telling(Reason.DATA_MISSING, Reason.CONFLICT), Reason.CONFLICT,
            "because of Conflict; do this", id="the gravest first",
        ),
        pytest.param(
            telling(Reason.DATA_MISSING, rows=[row(state="quarantined", reason="no data")]),
            Reason.DATA_MISSING, "because of DataMissing; do this", id="the sidecar's word before the state",
        ),
        pytest.param(
            telling(Reason.CONFLICT, uid="r-2"), Reason.SERVED,
            "served by vecstow", id="told of another resource",
        ),
        pytest.param(
            telling(Reason.MANIFEST_SET_ASIDE), Reason.SERVED,
            "served by vecstow", id="what degrades does not keep it from being ready",
        ),
        pytest.param(
            engine_of(pod(failure="a rename could not be synced")), Reason.STORAGE_FAILED,
            "pod vecstow-0: a rename could not be synced", id="an engine that can take nothing in",
        ),
        pytest.param(
            engine_of(pod(SERVED, failure="a rename could not be synced")), Reason.SERVED,
            "served by vecstow", id="what it serves already it serves",
        ),
        pytest.param(extra(SERVED), Reason.SERVED, "served by vecstow", id="every pod serves"),
        pytest.param(extra(), Reason.SERVED, "served by vecstow", id="a further pod does not follow"),
        pytest.param(
            extra(row(state="quarantined", reason="damage")), Reason.SERVED,
            "served by vecstow", id="a further pod is damaged",
        ),
        pytest.param(
            engine_of(pod(SERVED), dataclasses.replace(SILENT, name="vecstow-1")), Reason.SERVED,
            "served by vecstow", id="a further pod does not answer",
        ),
        pytest.param(
            engine_of(
                pod(SERVED),
                pod(
                    name="vecstow-1",
                    reports={"r-1": (report(Reason.VOLUME_REPLACED, "another volume"),)},
                ),
            ),
            Reason.SERVED, "served by vecstow", id="a further pod is on another volume",
        ),
        pytest.param(
            engine_of(pod(name="vecstow-1"), wanted_pods=2), Reason.ENGINE_UNREACHABLE,
            "engine 'vecstow' has no pod yet", id="a further pod stands in for none that is away",
        ),
    ],
)  # fmt: skip
def test_reason(engine, reason, message):
    assessment = assess(RESOURCE, engine)
    assert (assessment.reason, assessment.message) == (reason, message)


@pytest.mark.parametrize(
    ("engine", "is_confirmed"),
    [
        pytest.param(engine_of(pod(SERVED)), True, id="this uid and generation"),
        pytest.param(engine_of(pod(row(state="quarantined"))), True, id="in whatever state"),
        pytest.param(extra(SERVED), True, id="by every pod"),
        pytest.param(extra(), True, id="by the pod that clients reach"),
        pytest.param(
            engine_of(pod(), pod(SERVED, name="vecstow-1"), wanted_pods=2), False, id="by a further pod alone"
        ),
        pytest.param(engine_of(pod(row(generation=2))), False, id="another generation"),
        pytest.param(engine_of(pod(row(resource_uid="r-0"))), False, id="another uid"),
        pytest.param(engine_of(SILENT), False, id="no answer"),
        pytest.param(engine_of(), False, id="no pod"),
        pytest.param(MISSING, False, id="no engine"),
    ],
)
def test_confirmed_is_what_the_pod_that_serves_says(engine, is_confirmed):
    assessment = assess(RESOURCE, engine)
    assert assessment.is_confirmed is is_confirmed
    assert is_confirmed or assessment.reason is not Reason.SERVED


@pytest.mark.parametrize(
    ("aliases", "told", "reason"),
    [
        pytest.param(("docs", "main"), (), Reason.SERVED, id="all"),
        pytest.param(("main",), (), Reason.PENDING, id="one is missing"),
        pytest.param((), (Reason.ALIAS_REFUSED,), Reason.SERVED, id="the sidecar says why"),
    ],
)
def test_resource_is_ready_when_the_engine_answers_under_its_aliases(aliases, told, reason):
    resource = claim(generation=3, status=HAD, aliases=["docs", "main"])
    assessment = assess(resource, telling(*told, rows=(row(aliases=aliases),)))
    assert assessment.reason is reason
    assert assessment.aliases == aliases
    assert (assessment.degraded is not None) is bool(told)
    if reason is Reason.PENDING:
        assert "does not answer under the alias 'docs' yet" in assessment.message


def test_resource_that_is_being_deleted_is_not_ready():
    engine = engine_of(pod(SERVED))
    assert assess(DELETING, engine).reason is Reason.DELETING
    assert assess(DELETING, SCALED_DOWN).reason is Reason.ENGINE_SCALED_DOWN


@pytest.mark.parametrize("engine", [engine_of(pod()), MISSING, SCALED_DOWN], ids=["there", "missing", "none"])
def test_resource_that_only_others_keep_waits_for_them_alone(engine):
    assessment = assess(dataclasses.replace(DELETING, has_finalizer=False), engine)
    assert (assessment.reason, assessment.message) == (
        Reason.DELETING, "Vecstow is done with it; a finalizer of another program keeps it"
    )  # fmt: skip


def test_deletion_that_the_engine_cannot_do_says_so():
    assessment = assess(DELETING, engine_of(pod(SERVED, failure="a rename could not be synced")))
    assert assessment.reason is Reason.STORAGE_FAILED


# What it has had -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        pytest.param({"vector_count": 9}, Known(UID, VOLUME, 9), id="what is served is what it has"),
        pytest.param({"collection_uid": OTHER_UID}, Known(OTHER_UID, VOLUME, 7), id="repaired"),
        pytest.param(
            {"collection_uid": OTHER_UID, "vector_count": 2},
            Known(OTHER_UID, VOLUME, 2, Loss(OTHER_UID, 7, 5)),
            id="repaired in part",
        ),
        pytest.param({"state": "quarantined", "vector_count": 0}, RESOURCE.known, id="quarantined"),
        pytest.param({"state": "recovering", "vector_count": 0}, RESOURCE.known, id="recovering"),
        pytest.param(
            {"state": "quarantined", "vector_count": 0, "collection_uid": OTHER_UID},
            Known(OTHER_UID, VOLUME, 7, Loss(OTHER_UID, 7)),
            id="repaired, and lost before anybody saw it",
        ),
        pytest.param(
            {"state": "quarantined", "vector_count": 0, "collection_uid": None},
            RESOURCE.known,
            id="a manifest that names none",
        ),
        pytest.param({"generation": 2, "vector_count": 9}, RESOURCE.known, id="not confirmed"),
        pytest.param(
            {"collection_uid": None, "vector_count": 0}, RESOURCE.known, id="a loss that nobody accepted"
        ),
    ],
)
def test_what_it_has_had_is_known(changes, known):
    assert assess(RESOURCE, engine_of(pod(row(**changes)))).known == known


@pytest.mark.parametrize("state", ["ready", "quarantined"])
def test_collection_on_another_volume_is_not_known_before_the_loss_is_accepted(state):
    engine = engine_of(pod(row(collection_uid=OTHER_UID, state=state), volume_id=OTHER_VOLUME))
    assert assess(RESOURCE, engine).known == RESOURCE.known
    accepting = claim(generation=3, status=HAD, annotations={"vecstow.dev/accept-empty": UID})
    assessment = assess(accepting, engine_of(pod(row(collection_uid=OTHER_UID), volume_id=OTHER_VOLUME)))
    assert (assessment.reason, assessment.known) == (Reason.SERVED, Known(OTHER_UID, OTHER_VOLUME, 7))


def test_accepted_loss_is_forgotten():
    resource = claim(generation=3, status=HAD, annotations={"vecstow.dev/accept-empty": UID})
    assessment = assess(resource, engine_of(pod(row(collection_uid=None, vector_count=0))))
    assert (assessment.reason, assessment.known) == (Reason.SERVED, Known(None, VOLUME, 0))


def served_with(status, count, **fields):
    """Assess a repaired collection that serves so many vectors."""
    resource = claim(generation=3, status=status, **fields)
    return assess(resource, engine_of(pod(row(collection_uid=OTHER_UID, vector_count=count))))


REPAIRED = {"collectionUid": OTHER_UID, "volumeId": VOLUME, "vectorCount": 2}
LOST = {"collectionUid": OTHER_UID, "counted": 7, "missing": 5}


def test_loss_is_counted_once_the_repaired_collection_is_served():
    status = REPAIRED | {"vectorCount": 7, "loss": {"collectionUid": OTHER_UID, "counted": 7}}
    assert served_with(status, 2).known.loss == Loss(OTHER_UID, 7, 5)


def test_loss_stays_degraded_until_it_is_acknowledged():
    assessment = served_with(REPAIRED | {"loss": LOST}, 9)
    assert (assessment.reason, assessment.degraded.reason) == (Reason.SERVED, Reason.POINTS_LOST)
    assert assessment.degraded.message.startswith("5 of the 7 vectors that were counted last are missing")
    command, _, annotation = assessment.degraded.hint.rpartition(" ")
    key, _, value = annotation.partition("=")
    assert command.endswith("kubectl annotate --overwrite vcol notes")
    acknowledged = served_with(REPAIRED | {"loss": LOST}, 9, annotations={key: value})
    assert (acknowledged.degraded, acknowledged.known.loss) == (None, None)


def test_acknowledgement_of_a_loss_keeps_the_others():
    seen = {"vecstow.dev/acknowledged": "notes-20260101T000000Z"}
    assessment = served_with(REPAIRED | {"loss": LOST}, 9, annotations=seen)
    assert assessment.degraded.hint.endswith(f"notes-20260101T000000Z,{OTHER_UID}")


def test_second_repair_adds_to_the_loss():
    status = REPAIRED | {"collectionUid": UID, "loss": LOST | {"collectionUid": UID}}
    assert served_with(status, 2).known.loss == Loss(OTHER_UID, 7, 5)
    assert served_with(status, 1).known.loss == Loss(OTHER_UID, 7, 6)


def test_loss_that_was_accepted_is_none():
    assert served_with(HAD, 2, annotations={"vecstow.dev/accept-empty": UID}).known.loss is None


def test_acceptance_of_another_loss_does_not_count():
    resource = claim(generation=3, status=HAD, annotations={"vecstow.dev/accept-empty": OTHER_UID})
    assessment = assess(resource, engine_of(pod(row(collection_uid=None, vector_count=0))))
    assert (assessment.reason, assessment.known) == (Reason.DATA_MISSING, resource.known)


def test_volume_is_the_one_of_the_first_pod():
    second = pod(SERVED, name="vecstow-1", volume_id=OTHER_VOLUME)
    assert assess(RESOURCE, engine_of(pod(SERVED), second)).known.volume_id == VOLUME


def test_each_pod_is_a_replica_in_its_own_words():
    assessment = assess(RESOURCE, engine_of(pod(SERVED), dataclasses.replace(SILENT, name="vecstow-1")))
    assert assessment.replicas == (
        {
            "pod": "vecstow-0",
            "podUid": "uid of vecstow-0",
            "resourceUid": "r-1",
            "generation": 3,
            "state": "ready",
        },
        {"pod": "vecstow-1", "podUid": "p-1", "state": "unknown"},
    )


# Degraded, indexing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "reason", "text"),
    [
        pytest.param(
            engine_of(pod(row(state="degraded", reason="1 point is withheld"))),
            Reason.POINTS_WITHHELD, "1 point is withheld; kubectl vecstow repair notes --dry-run",
            id="withheld points",
        ),
        pytest.param(
            engine_of(pod(SERVED, is_full=True)), Reason.VOLUME_FULL,
            "the volume of pod vecstow-0 is full: writes get 507, reads are answered; "
            "kubectl vecstow cleanup frees the room of dropped collections", id="a full volume",
        ),
        pytest.param(
            telling(Reason.MANIFEST_SET_ASIDE), Reason.MANIFEST_SET_ASIDE,
            "because of ManifestSetAside; do this", id="a manifest that was damaged",
        ),
        pytest.param(
            extra(SERVED), Reason.EXTRA_REPLICAS,
            "engine 'vecstow' has 2 pods, each with its own volume: clients reach the first alone; "
            "scale it to one", id="more pods than one",
        ),
        pytest.param(
            extra(row(state="quarantined", reason="damage")), Reason.EXTRA_REPLICAS,
            "engine 'vecstow' has 2 pods, each with its own volume: clients reach the first alone; "
            "scale it to one", id="whatever a further pod has",
        ),
    ],
)  # fmt: skip
def test_degraded(engine, reason, text):
    degraded = assess(RESOURCE, engine).degraded
    assert (degraded.reason, degraded.text) == (reason, text)


def test_sound_collection_is_not_degraded():
    assert assess(RESOURCE, engine_of(pod(SERVED))).degraded is None


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        pytest.param({"indexed": 7}, None, id="all"),
        pytest.param({"vector_count": 0, "indexed": 0}, None, id="nothing to index"),
        pytest.param({"vector_count": 1000, "indexed": 0}, 0, id="none yet"),
        pytest.param({"vector_count": 1000, "indexed": 999}, 90, id="in steps of ten, so that few are told"),
        pytest.param({"rebuilt": 0}, 0, id="built again from the beginning"),
        pytest.param({"rebuilt": 5}, 70, id="built again in part"),
        pytest.param({"vector_count": 0, "indexed": 0, "rebuilt": 0}, 0, id="built again of nothing"),
        pytest.param({"state": "recovering", "indexed": 0}, None, id="not served yet"),
    ],
)
def test_indexing(changes, share):
    indexing = assess(RESOURCE, engine_of(pod(row(**changes)))).indexing
    assert (indexing is None) == (share is None)
    graph = "a new graph" if "rebuilt" in changes else "the graph"
    assert share is None or indexing.startswith(f"pod vecstow-0 has {share} % of the vectors in {graph}")


# Release ---------------------------------------------------------------------------------------------------

GONE = {"r-1": (report(Reason.DELETING, "nothing on the volume is its own"),)}


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        pytest.param(GONE_ENGINE, True, id="no engine: nobody can drop it any more"),
        pytest.param(MISSING, False, id="no engine for a moment: it may be rebuilt"),
        pytest.param(
            engine_of(pod(reports=GONE), wanted_pods=2), False, id="one pod of two is not there yet"
        ),
        pytest.param(SCALED_DOWN, False, id="scaled to zero waits"),
        pytest.param(engine_of(), False, id="no pod yet waits"),
        pytest.param(engine_of(SILENT), False, id="a pod that does not answer is waited for"),
        pytest.param(engine_of(pod(SERVED)), False, id="still served"),
        pytest.param(engine_of(pod(SERVED, reports=GONE)), False, id="told, but the engine has it still"),
        pytest.param(engine_of(pod()), False, id="not served, but the sidecar has not said so"),
        pytest.param(engine_of(pod(reports=GONE)), True, id="moved away, and both say so"),
        pytest.param(
            engine_of(pod(row(resource_uid=None), reports=GONE)), True, id="retained: it is REST's now"
        ),
        pytest.param(
            engine_of(pod(row(resource_uid="r-9"), reports=GONE)), True, id="a conflict: it is another's"
        ),
        pytest.param(
            engine_of(pod(row(name="elsewhere"), reports=GONE)), False, id="under another name it is its"
        ),
        pytest.param(
            engine_of(pod(reports={"r-2": GONE["r-1"]})), False, id="what is said of another resource"
        ),
        pytest.param(
            engine_of(pod(reports={"r-1": (report(Reason.NEWER_FORMAT, "newer"),)})), False,
            id="the sidecar says something else",
        ),
        pytest.param(
            engine_of(pod(reports=GONE), pod(SERVED, name="vecstow-1")), False, id="one pod of two has it"
        ),
        pytest.param(
            engine_of(pod(reports=GONE), pod(name="vecstow-1", reports=GONE)), True, id="no pod of two"
        ),
    ],
)  # fmt: skip
def test_released(engine, expected):
    assert is_released(DELETING, engine) is expected


# The engine's document -------------------------------------------------------------------------------------

FINDING = {
    "collection": "notes", "resource_uid": "r-1", "reason": "Conflict", "message": "taken", "hint": None,
}  # fmt: skip
DOCUMENT = {
    "engine": "vecstow",
    "pod_uid": "p-1",
    "volume_id": VOLUME,
    "held": False,
    "failure": None,
    "collections": [
        {
            "name": "notes", "collection_uid": UID, "resource_uid": "r-1", "generation": 3,
            "managed_by": "kubernetes", "state": "ready", "reason": None, "vector_count": 7, "indexed": 7,
            "overlay_bytes": 0, "log_bytes": 0,
        },
        {"name": "broken", "state": "quarantined", "reason": "not valid JSON", "vector_count": 0},
    ],
    "findings": {"resources": [FINDING, FINDING | {"reason": "DataMissing", "hint": "do this"}]},
}  # fmt: skip


def test_state_document_is_read():
    state = parse_state(DOCUMENT)
    assert state.volume_id == VOLUME
    assert state.collections == {
        "notes": SERVED,
        "broken": CollectionState("broken", "quarantined", "not valid JSON"),
    }
    assert state.reports == {
        "r-1": (
            report(Reason.CONFLICT, "taken"),
            report(Reason.DATA_MISSING, "taken", "do this"),
        )
    }
    assert state.failure is None


@pytest.mark.parametrize("findings", [None, {}, {"resources": []}], ids=["none", "empty", "no resource"])
def test_engine_that_no_sidecar_has_told_anything_is_read(findings):
    assert parse_state(DOCUMENT | {"findings": findings}).reports == {}


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({}, id="nothing"),
        pytest.param(DOCUMENT | {"collections": None}, id="no rows"),
        pytest.param(DOCUMENT | {"collections": [{"state": "ready"}]}, id="a row without a name"),
        pytest.param(DOCUMENT | {"collections": [{"name": "n"}]}, id="a row without a state"),
        pytest.param(DOCUMENT | {"findings": {"resources": [{}]}}, id="an empty finding"),
        pytest.param(DOCUMENT | {"findings": [FINDING]}, id="a list of findings"),
    ],
)
def test_what_is_no_state_document_is_refused(broken):
    with pytest.raises(NOT_UNDERSTOOD):
        parse_state(broken)


def test_word_of_a_newer_sidecar_degrades_only_its_collection():
    newer = FINDING | {"reason": "Throttled", "hint": "wait"}
    other = DOCUMENT["collections"][0] | {"name": "other", "resource_uid": "r-2"}
    document = DOCUMENT | {
        "collections": [*DOCUMENT["collections"], other], "findings": {"resources": [newer]}
    }  # fmt: skip
    engine = engine_of(EnginePod("vecstow-0", "p-1", parse_state(document)))
    assessment = assess(RESOURCE, engine)
    assert (assessment.reason, assessment.degraded.reason) == (Reason.SERVED, Reason.UNKNOWN)
    assert assessment.degraded.text == "Throttled: taken; wait"
    other = assess(claim("other", "r-2", generation=3), engine)
    assert (other.reason, other.degraded) == (Reason.SERVED, None)


def test_resource_is_known_by_whichever_manifest_names_it():
    state = parse_state(DOCUMENT)
    assert (state.knows("r-1"), state.knows("r-2")) == (True, False)


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        pytest.param(SCALED_DOWN, True, id="wants none and has none"),
        pytest.param(engine_of(), False, id="wants one"),
        pytest.param(engine_of(SILENT, wanted_pods=0), False, id="its last pod is still there"),
        pytest.param(MISSING, False, id="there is none"),
    ],
)
def test_scaled_down(engine, expected):
    assert engine.is_scaled_down is expected
