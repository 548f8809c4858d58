"""Any flipped bit, zeroed sector or cut of a file: what is told is right, what is not told is reported."""

import random
import shutil

import pytest

from tests.unit.store_on_disk import StoreOnDisk
from vecstow_engine.model.errors import StorageError, Unavailable

SECTOR = 512
WANTED = {f"point-{number}": number + 1 for number in range(90)} | {
    f"point-{number}": number + 1000 for number in range(60, 80)
}
GONE = [f"point-{number}" for number in range(80, 90)]
ROUNDS = 250


def make(folder):
    """Points in the files, updated and deleted ones among them, and two segments with newer records."""
    notes = StoreOnDisk(folder)
    notes.put(**{f"point-{number}": number + 1 for number in range(90)})
    notes.checkpoint()
    notes.put(**{f"point-{number}": number + 1000 for number in range(60, 70)})
    notes.delete(*GONE[:5])
    notes.checkpoint()
    notes.put(**{f"point-{number}": number + 1000 for number in range(70, 75)})
    notes.delete(*GONE[5:])
    notes.put(**{f"point-{number}": number + 1000 for number in range(75, 80)})
    notes.close()
    return notes


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make(tmp_path_factory.mktemp("whole") / "data")


def expected():
    return {point_id: value for point_id, value in WANTED.items() if point_id not in GONE}


def damage(path, kind, chance):
    raw = bytearray(path.read_bytes())
    place = chance.randrange(len(raw))
    if kind == "flip":
        raw[place] ^= 1 << chance.randrange(8)
    elif kind == "zeros":
        start = place - place % SECTOR
        raw[start : start + SECTOR] = bytes(len(raw[start : start + SECTOR]))
    else:
        raw = raw[:place]
    path.write_bytes(raw)
    return f"{kind} of {path.name} at {place}"


def told(notes, point_id):
    """The value, None where there is none, "withheld" where the engine says that it cannot tell."""
    try:
        [point] = notes.store.view.get([point_id])
    except (Unavailable, StorageError):
        return "withheld"
    if point is None:
        return None
    assert point.vector.tolist() == [point.vector[0] + step for step in range(4)]
    return float(point.vector[0])


def check(notes, what):
    """Everything that is told is right. The last writes may be missing where a torn tail was reported, or the
    log was cut: what a file had behind its end, nobody can tell.
    """
    torn = any("torn tail" in warning for warning in notes.opened.warnings) or what.startswith("cut of 0000")
    wanted = expected()
    for point_id in WANTED:
        found = told(notes, point_id)
        right = [wanted.get(point_id), "withheld"]
        if torn and 70 <= int(point_id.partition("-")[2]) < 90:
            right += [WANTED[point_id] - 999 if point_id not in GONE else WANTED[point_id]]
            right += [int(point_id.partition("-")[2]) + 1]
        assert found in right, f"{what}: {point_id} is {found}"
    try:
        scanned = [point_id for _, point_id, _ in notes.store.view.scan()]
    except StorageError:
        return
    assert len(scanned) == len(set(scanned)), what
    assert torn or set(scanned) <= wanted.keys(), what


@pytest.mark.parametrize("kind", ["flip", "zeros", "cut"])
@pytest.mark.parametrize("name", ["points.db", "vectors.bin", "log"])
def test_damage_is_reported_or_mended_and_never_served(whole, tmp_path, kind, name):
    chance = random.Random(f"{kind} {name}")
    outcomes = set()
    for round_ in range(ROUNDS // 3):
        target = tmp_path / f"{round_}"
        shutil.copytree(whole.data, target)
        paths = sorted(target.glob("wal/*/*.log")) if name == "log" else [target / "notes" / name]
        what = damage(chance.choice(paths), kind, chance)
        try:
            notes = StoreOnDisk(target, whole.manifest)
        except StorageError:
            outcomes.add("refused")
            continue
        try:
            check(notes, what)
            outcomes.add("served")
        finally:
            notes.close()
        shutil.rmtree(target)
    assert "refused" in outcomes


@pytest.mark.parametrize("kind", ["flip", "zeros", "cut"])
def test_collection_that_is_served_after_damage_goes_on_rightly(whole, tmp_path, kind):
    """What is written, deleted and checkpointed then is there after the next start."""
    chance = random.Random(f"{kind} goes on")
    served = 0
    for round_ in range(ROUNDS // 3):
        target = tmp_path / f"{round_}"
        shutil.copytree(whole.data, target)
        what = damage(target / "notes" / chance.choice(["points.db", "vectors.bin"]), kind, chance)
        try:
            notes = StoreOnDisk(target, whole.manifest)
        except StorageError:
            continue
        try:
            notes.put(**{"point-1": 5001, "new": 5002})
            notes.delete("point-2")
            notes.store.checkpoint()
            notes = notes.reopened()
            served += 1
            assert told(notes, "point-1") in (5001, "withheld"), what
            assert told(notes, "new") == 5002, what
            assert told(notes, "point-2") in (None, "withheld"), what
            assert told(notes, "point-30") in (31, "withheld"), what
        except (Unavailable, StorageError):
            pass
        finally:
            notes.close()
        shutil.rmtree(target)
    assert served > 5
