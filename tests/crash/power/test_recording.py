"""One record of the real server: it is whole, the model agrees with it, and what must be met is in it."""

import random
import subprocess
import sys
from collections import Counter

import pytest

from tests.crash.power import trace
from tests.crash.power.cache import Cache
from tests.crash.power.disk import chosen_names
from tests.crash.power.events import Link, Mapping, Rename, Sync, Unlink
from tests.crash.power.moments import chosen, moments
from tests.crash.power.reader import Reader
from tests.crash.power.recording import recording
from tests.crash.power.states import MAPPED_SUFFIX, Chooser, _everything
from tests.crash.power.witness import (
    FAILED_SYNC,
    JOURNAL_BACK,
    LATER_WITHOUT_EARLIER,
    SEGMENT_BACK,
    witnessed,
)

pytestmark = pytest.mark.skipif(trace.missing() is not None, reason="nothing can be recorded here")

SEED = 4
OPERATIONS = 40
TRIES_MAX = 4_000


@pytest.fixture(scope="module")
def record():
    return recording(SEED, OPERATIONS, False)


def test_everything_that_may_go_wrong_is_in_the_record(record):
    renamed = {event.new for event in record.events if isinstance(event, Rename)}
    assert {"metadata.json", "index.bin"} <= renamed
    assert any(name.endswith(".log") for name in renamed)
    assert any(isinstance(event, Link) and event.name == ".deleted" for event in record.events)
    assert any(isinstance(event, Unlink) and event.name.endswith(".log") for event in record.events)
    kinds = Counter(type(operation).__name__ for ledger in record.ledgers for operation, _ in ledger.entries)
    assert {"Create", "Drop", "Restore", "Backup", "Put", "Delete"} <= kinds.keys()


def test_answers_come_after_the_record_began_and_in_their_order(record):
    for ledger in record.ledgers:
        told = record.told[ledger.client]
        assert len(told) == len(ledger.entries)
        assert told == sorted(told)
        assert told[0] > record.begun
    assert record.answered(record.begun) == dict.fromkeys("abcd", 0)
    assert record.answered(1 << 40) == {ledger.client: len(ledger.entries) for ledger in record.ledgers}


def test_a_disk_that_lost_nothing_has_what_the_processes_see(record):
    places = random.Random(SEED).sample([event.exit + 1 for event in record.events], 40)
    for moment in moments(record.events, sorted(places)):
        chooser = Chooser(moment.disk, random.Random(SEED))
        if moment.has_under_way:
            continue
        names, choices = _everything(chooser)
        state = chooser.build(chosen_names(moment.disk, names), choices)
        assert seen(state.tree) == seen(moment.cache.tree())


def seen(tree):
    return {path: content for path, content in tree.items() if not path.endswith(MAPPED_SUFFIX)}


def test_nothing_writes_through_memory_but_the_shared_memory_of_sqlite(record):
    assert any(isinstance(event, Mapping) for event in record.events)
    assert record.mapped() == set()


def test_a_program_that_writes_through_memory_is_found(tmp_path):
    (tmp_path / "data").mkdir()
    program = (
        "import mmap, os, sys; fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); os.ftruncate(fd, 9);"
        " mmap.mmap(fd, 9)[:2] = b'ab'"
    )
    output = tmp_path / "trace"
    command = [sys.executable, "-c", program, tmp_path / "data" / "rows"]
    subprocess.run(trace.strace(output, command), check=True)
    calls = trace.parse(output.read_text().splitlines())
    events = Reader(tmp_path / "data", Cache()).read(calls)
    assert [event.path for event in events if isinstance(event, Mapping)] == ["rows"]


@pytest.mark.parametrize("fact", [LATER_WITHOUT_EARLIER, SEGMENT_BACK, JOURNAL_BACK])
def test_the_states_of_a_record_show_what_a_lost_write_could_hide_in(record, fact):
    assert occurs(fact, record)


def test_the_states_of_a_record_with_a_failed_sync_lack_what_the_page_cache_showed():
    record = recording(SEED, OPERATIONS, True)
    assert any(isinstance(event, Sync) and not event.ok for event in record.events)
    assert occurs(FAILED_SYNC, record)


def occurs(fact, record):
    """Within so many states at moments all over the record."""
    chance = random.Random(SEED)
    positions = record.positions()
    for _ in range(TRIES_MAX // 200):
        for moment in moments(record.events, chosen(positions, record.events, 200, chance)):
            if witnessed(Chooser(moment.disk, chance).state(), moment)[fact]:
                return True
    return False
