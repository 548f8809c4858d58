"""text: the engine's text index next to SQLite's FTS5 and tantivy (where installed), without a server."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from benchmarks.harness.context import Context, K
from benchmarks.harness.dataset import SEED
from benchmarks.harness.figures import Figure, Series
from benchmarks.harness.text_indexes import CANDIDATES, Candidate, Slots
from vecstow_engine.cli.serving import M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES

NAME = "text"
DOCUMENTS: Final = 100_000
DOCUMENT_WORDS: Final = 40
VOCABULARY: Final = 200_000
EXPONENT: Final = 1.0
"""The frequency of a word falls with its rank to this power (Zipf's law)."""
BATCH: Final = 1000
SINGLES: Final = 200
REMOVED: Final = 1000
QUERIES: Final = 30
QUERY_WORDS: Final = 3
RANKS: Final = {"rare": 20_000, "medium": 1_000, "frequent": 20}
"""The words of a query have about this rank."""
SHARES: Final = {"": 1.0, ", filter of 50 %": 0.5, ", filter of 1 %": 0.01}
_PAGE_BYTES: Final = 4096


def measure(context: Context) -> Iterator[Figure]:
    """Each index in a process of its own, one after the other, in each run."""
    series = {name: Series() for name in CANDIDATES}
    for run in range(context.runs):
        for name, found in series.items():
            context.say(f"run {run + 1}: {name}")
            folder = context.folder / f"text-{name}-{run}"
            folder.mkdir()
            built = _apart(_build, name, folder)
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            found.add(**built, **{"disk, bytes a document": size / DOCUMENTS}, **_apart(_open, name, folder))
    note = f"text: {DOCUMENTS:,} documents of {DOCUMENT_WORDS} words. Times are those of the processors."
    for figure in series["own"].values:
        unit = figure.rpartition(", ")[2]
        for name, found in series.items():
            yield Figure(NAME, f"{figure.removesuffix(', ' + unit)}: {name}", unit, found[figure], note=note)


def texts(count: int) -> list[str]:
    """The same texts in every run; words are numbers in letters, the frequent ones short."""
    random = np.random.default_rng([SEED, 4])
    weights = (np.arange(VOCABULARY) + 1.0) ** -EXPONENT
    drawn = random.choice(VOCABULARY, (count, DOCUMENT_WORDS), p=weights / weights.sum())
    spelt = [word(rank) for rank in range(VOCABULARY)]
    return [" ".join(spelt[rank] for rank in line) for line in drawn.tolist()]


def word(rank: int) -> str:
    """The word of a rank."""
    letters = []
    rank += 26
    while rank:
        rank, letter = divmod(rank, 26)
        letters.append(chr(ord("a") + letter))
    return "".join(letters)


def _apart(call: Callable[[str, Path], dict[str, float]], name: str, folder: Path) -> dict[str, float]:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(call, name, folder).result()


def _build(name: str, folder: Path) -> dict[str, float]:
    """Fill an index, ask, write single documents, remove some."""
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)  # as the engine does
    content = texts(DOCUMENTS + SINGLES)
    slots = np.arange(len(content))
    before = _resident_bytes()
    index = CANDIDATES[name](folder)
    started = time.process_time()
    for start in range(0, DOCUMENTS, BATCH):
        index.put(slots[start : start + BATCH], content[start : min(start + BATCH, DOCUMENTS)])
    found = {"indexed, documents/s": DOCUMENTS / (time.process_time() - started)}
    found |= _asked(index)
    found["memory, bytes a document"] = (_resident_bytes() - before) / DOCUMENTS
    singles = range(DOCUMENTS, DOCUMENTS + SINGLES)
    found["one document until it is found, ms"] = _typical(
        singles, lambda slot: _put_and_find(index, slots[slot : slot + 1], content[slot])
    )
    removed = slots[:REMOVED]
    started = time.process_time()
    index.remove(removed, content[:REMOVED])
    found[f"{REMOVED:,} removed, ms"] = 1000 * (time.process_time() - started)
    index.close()
    return found


def _open(name: str, folder: Path) -> dict[str, float]:
    """Open an index again, and ask once."""
    started = time.process_time()
    index = CANDIDATES[name](folder)
    index.search([word(RANKS["rare"])], K, None)
    return {"opened again, ms": 1000 * (time.process_time() - started)}


def _asked(index: Candidate) -> dict[str, float]:
    random = np.random.default_rng([SEED, 5])
    found = {}
    for share_name, share in SHARES.items():
        allowed = None if share == 1 else random.random(DOCUMENTS + SINGLES) < share
        for rank_name, rank in RANKS.items():
            queries = [[word(rank + 3 * n + i) for i in range(QUERY_WORDS)] for n in range(QUERIES)]
            found[f"{QUERY_WORDS} {rank_name} words{share_name}, ms"] = _typical(
                queries, lambda query, allowed=allowed: index.search(query, K, allowed)
            )
    return found


def _put_and_find(index: Candidate, slot: Slots, text: str) -> None:
    index.put(slot, [text])
    index.search(sorted(text.split(), key=len)[-QUERY_WORDS:], K, None)


def _typical(arguments: Sequence[object], call: Callable[..., object]) -> float:
    """The median time of a call in milliseconds."""
    taken = []
    for argument in arguments:
        started = time.process_time()
        call(argument)
        taken.append(time.process_time() - started)
    return 1000 * median(taken)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
