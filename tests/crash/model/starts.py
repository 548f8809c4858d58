"""Clean restarts, and kills at every bad moment."""

from __future__ import annotations

import shutil
from pathlib import Path

import hypothesis.strategies as st
from hypothesis.stateful import rule

from tests.crash.model.draws import PICK, POINTS, SHARE, has_collections, is_free
from tests.crash.model.points import PointRules
from tests.crash.model.site import CALLS_OF_A_START, MOMENTS
from tests.crash.model.world import stored
from vecstow_engine.storage.layout import Layout


class StartRules(PointRules):
    """The ways in which a process ends, and the content that must be there afterwards."""

    @rule()
    def restart(self) -> None:
        self.site.restart()
        self.held = False

    @rule()
    def kill(self) -> None:
        self.site.kill()
        self.held = False

    @has_collections
    @rule(pick=PICK, values=POINTS, call=st.sampled_from(CALLS_OF_A_START))
    def kill_in_start(self, pick: int, values: dict[str, int], call: str) -> None:
        """Kill a start, so that the next one replays the same records again."""
        self.put(pick, values)
        self.site.kill_in_start(call)
        self.held = False

    @is_free
    @has_collections
    @rule(pick=PICK, values=POINTS, moment=st.sampled_from(list(MOMENTS)), loses_log=st.booleans())
    def kill_in_checkpoint(self, pick: int, values: dict[str, int], moment: str, loses_log: bool) -> None:
        """Whatever it was in the middle of, what the last checkpoint has is there without the log.

        Of two updates the second must not take the slots that the first gave up.
        """
        self.put(pick, values)
        self.put(pick, values)
        name = self.named(pick)
        store = self.collection(name).store
        if store is None:
            return
        uid, kept = store.identity.uid, self.live[name]
        kept.applied = store.meta.applied

        def change(layout: Layout) -> None:
            if loses_log:
                shutil.rmtree(layout.log(uid), ignore_errors=True)

        if moment == "idle" or not self.site.kill_in_checkpoint(name, moment, change):
            self.site.kill(change)
        if loses_log:
            found = self.collection(name).store
            assert found is not None
            kept.fell_back(found.meta.applied)

    @has_collections
    @rule(pick=PICK, values=POINTS, share=SHARE, grown=st.booleans())
    def kill_in_write(self, pick: int, values: dict[str, int], share: float, grown: bool) -> None:
        """Its record is cut at any byte; the file's length may have grown before its content did."""
        name = self.named(pick)
        store, kept = self.collection(name).store, self.live[name]
        if store is None:
            return
        store.log.resume()
        begin = store.log.size
        self.write(name, values)
        end = store.log.size
        stop = begin + round(share * (end - begin))
        uid = store.identity.uid
        if stop == end:
            points = {point_id: stored(value) for point_id, value in values.items()}
            kept.became(kept.points | points, self.sequence(name))
        self.site.kill(lambda layout: cut_newest(layout.log(uid), stop, end if grown else stop))
        self.held = False


def cut_newest(folder: Path, length: int, grown_to: int) -> None:
    """Cut the newest segment to `length` bytes, and append zeros up to `grown_to`."""
    path = max(folder.glob("*.log"))
    raw = path.read_bytes()[:length]
    path.write_bytes(raw + bytes(grown_to - length))
