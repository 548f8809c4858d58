"""Whatever byte changes on a volume: nothing is told wrongly, and a check tells what a start makes of it."""

import random

import pytest

from tests.unit.checked_volume import CheckedVolume, trace

LEFT_ALONE = {"LOCK", "RESERVE", "VOLUME", ".manifests.lock"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return CheckedVolume(tmp_path_factory.mktemp("damage") / "data").build()


def damage(rng: random.Random, raw: bytearray) -> None:
    """A bit, a byte, a page of zeros, or another length."""
    place = rng.randrange(len(raw))
    match rng.choice(["bit"] * 4 + ["byte"] * 2 + ["page", "cut", "longer", "lost end"]):
        case "bit":
            raw[place] ^= 1 << rng.randrange(8)
        case "byte":
            raw[place] = rng.randrange(256)
        case "page":
            start = place // 4096 * 4096
            raw[start : start + 4096] = bytes(len(raw[start : start + 4096]))
        case "cut":
            del raw[place:]
        case "longer":
            raw += rng.randbytes(rng.randrange(1, 9000))
        case "lost end":
            raw[place:] = bytes(len(raw) - place)


@pytest.mark.parametrize("seed", range(80))
def test_damage_is_never_told_as_data(built, tmp_path, seed):
    volume = built.copied(tmp_path / "data")
    rng = random.Random(seed)
    paths = [volume.table] if seed % 2 else sorted(p for p in volume.data.rglob("*") if p.is_file())
    path = rng.choice([p for p in paths if p.stat().st_size and p.name not in LEFT_ALONE])
    raw = bytearray(path.read_bytes())
    damage(rng, raw)
    path.write_bytes(raw)
    before = trace(volume.data)
    report = volume.check()
    assert trace(volume.data) == before
    state = report.collections["notes"]["state"]
    assert state == volume.state_when_started()
    assert (state != "ready") <= (not report.clean)
