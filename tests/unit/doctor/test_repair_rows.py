"""Repair of a damaged vectors.bin: rows prove themselves by the checksums that points.db has."""

import numpy as np
import pytest
from crc32c import crc32c

from tests.unit.checked_volume import cut, flip, rewrite_point, zero
from tests.unit.damaged_store import PAGE, DamagedStore, without
from vecstow_engine.doctor.repair import RepairOutcome
from vecstow_engine.storage.identity import HEADER_BYTES


@pytest.fixture
def store(tmp_path):
    return DamagedStore(tmp_path / "data")


def test_damaged_row_is_taken_out_and_its_payload_kept_for_who_inserts_it_again(store):
    offset = store.row_offset("p7")
    flip(store.rows, offset + 5)
    done = store.repair()
    assert store.served() == without(store.points, "p7")
    assert store.lost(done) == [
        {
            "id": "p7", "slot": 7, "proven": True, "metadata": {"v": 8.0},
            "reason": "its row fails its checksum", "file": "notes/vectors.bin", "offset": offset,
        }
    ]  # fmt: skip


def test_damaged_row_that_the_log_replaces_or_deletes_is_no_loss(store):
    for point_id in ("p0", "p1", "p2"):
        flip(store.rows, store.row_offset(point_id))
    flip(store.rows, store.row_offset("p7"))
    done = store.repair()
    assert store.served() == without(store.points, "p7")
    assert done.plan.lost == 1


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda s: flip(s.rows, 40), id="a bit"),
        pytest.param(lambda s: zero(s.rows, 0, HEADER_BYTES), id="all of it"),
        pytest.param(lambda s: flip(s.rows, 0), id="the magic"),
    ],
)
def test_header_of_the_rows_is_made_anew_from_manifest_and_log(store, damage):
    damage(store)
    assert store.repair().outcome is RepairOutcome.REPAIRED
    assert store.served() == store.points


def test_header_of_the_rows_is_made_anew_without_a_manifest(store):
    """The log's headers have the shape; the meta row has the uid."""
    zero(store.rows, 0, HEADER_BYTES)
    store.manifest.unlink()
    store.repair()
    assert store.served() == store.points


def test_rows_that_are_cut_off_are_lost_one_by_one(store):
    cut(store.rows, PAGE + 250 * 16)
    done = store.repair()
    served = store.served()
    assert served.items() <= store.points.items()
    assert set(store.points) - set(served) == {line["id"] for line in store.lost(done)}
    assert len(served) > 200


def test_without_rows_only_what_the_log_has_is_saved(store):
    store.rows.unlink()
    done = store.repair()
    assert store.served() == {i: v for i, v in store.points.items() if i.startswith("n") or i == "p2"}
    assert done.plan.lost == len(store.points) - 11
    assert all(line["proven"] for line in store.lost(done))


def test_rows_of_another_incarnation_are_not_taken_for_its_own(store):
    """They could only be matched by chance; the right file may be somewhere."""
    raw = bytearray(store.rows.read_bytes())
    other = DamagedStore(store.data.with_name("other"))
    raw[:HEADER_BYTES] = other.rows.read_bytes()[:HEADER_BYTES]
    store.rows.write_bytes(raw)
    done = store.repair()
    assert done.outcome is RepairOutcome.IMPOSSIBLE
    assert "vectors.bin belongs to incarnation" in done.plan.impossible
    assert store.rows.read_bytes() == raw


def test_row_that_is_intact_but_not_finite_is_taken_out(store):
    """A row that no engine has written is not served, whatever its checksum."""
    raw = bytearray(store.rows.read_bytes())
    offset = store.row_offset("p7")
    raw[offset : offset + 4] = np.float32("nan").tobytes()
    store.rows.write_bytes(raw)
    rewrite_point(store, "p7", row_checksum=crc32c(bytes(raw[offset : offset + 16])))
    done = store.repair()
    assert store.served() == without(store.points, "p7")
    assert [line["reason"] for line in store.lost(done)] == ["its row holds values that are not finite"]
