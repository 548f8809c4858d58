"""Three text indexes behind one interface: the engine's, SQLite's FTS5 and, where installed, tantivy."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.index.text.text_index import TextIndex

Slots = NDArray[np.int64]
Allowed = NDArray[np.bool_]
HEAP_BYTES: Final = 15_000_000
"""The least that tantivy's writer takes for one thread, rounded up."""


class Candidate(Protocol):
    """Texts by slot; what is put or removed counts in the next search."""

    def put(self, slots: Slots, texts: Sequence[str]) -> None:
        """Add texts of slots that have none."""

    def remove(self, slots: Slots, texts: Sequence[str]) -> None:
        """Remove slots, whose texts are given."""

    def search(self, words: Sequence[str], k: int, allowed: Allowed | None) -> list[int]:
        """Return the best k slots for any of the words."""

    def close(self) -> None:
        """Leave in the folder what another process opens."""


class Own:
    """`index/text/` of the engine, saved as the cache of a collection."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "text"
        raw = self._path.read_bytes() if self._path.exists() else None
        self._index = TextIndex() if raw is None else TextIndex.load(raw, str(self._path))

    def put(self, slots: Slots, texts: Sequence[str]) -> None:
        self._index.put(slots, texts)

    def remove(self, slots: Slots, texts: Sequence[str]) -> None:
        self._index.remove(slots)

    def search(self, words: Sequence[str], k: int, allowed: Allowed | None) -> list[int]:
        return self._index.search(" ".join(words), k, allowed)[0].tolist()

    def close(self) -> None:
        with self._path.open("wb") as file:
            file.writelines(self._index.save())


class Fts5:
    """A table without content, as the payload has the text; nothing is synced, as it is a cache."""

    def __init__(self, folder: Path) -> None:
        self._connection = sqlite3.connect(folder / "fts5.db", isolation_level=None)
        self._run = self._connection.execute
        self._run("PRAGMA journal_mode=WAL")
        self._run("PRAGMA synchronous=OFF")
        tokenize = "tokenize='unicode61 remove_diacritics 2'"
        self._run(f"CREATE VIRTUAL TABLE IF NOT EXISTS texts USING fts5(text, content='', {tokenize})")
        self._run("CREATE TEMP TABLE allowed (slot INTEGER PRIMARY KEY)")

    def put(self, slots: Slots, texts: Sequence[str]) -> None:
        rows = zip(slots.tolist(), texts, strict=True)
        self._write("INSERT INTO texts(rowid, text) VALUES (?, ?)", rows)

    def remove(self, slots: Slots, texts: Sequence[str]) -> None:
        rows = zip(slots.tolist(), texts, strict=True)
        self._write("INSERT INTO texts(texts, rowid, text) VALUES ('delete', ?, ?)", rows)

    def search(self, words: Sequence[str], k: int, allowed: Allowed | None) -> list[int]:
        query, condition = " OR ".join(f'"{word}"' for word in words), ""
        if allowed is not None:
            self._run("DELETE FROM allowed")
            slots = ((slot,) for slot in np.flatnonzero(allowed).tolist())
            self._write("INSERT INTO allowed VALUES (?)", slots)
            condition = "AND +rowid IN (SELECT slot FROM allowed)"
        found = self._run(
            f"SELECT rowid FROM texts WHERE texts MATCH ? {condition} ORDER BY rank LIMIT ?", (query, k)
        )
        return [slot for (slot,) in found]

    def close(self) -> None:
        self._connection.close()

    def _write(self, statement: str, rows: Any) -> None:
        self._run("BEGIN")
        self._connection.executemany(statement, rows)
        self._run("COMMIT")


class Tantivy:
    """One writer thread, and a commit for each write, without which a search does not see it."""

    def __init__(self, folder: Path) -> None:
        import tantivy

        self._library = tantivy
        builder = tantivy.SchemaBuilder()
        builder.add_unsigned_field("slot", stored=True, indexed=True)
        builder.add_text_field("text", index_option="freq")
        self._schema = builder.build()
        path = folder / "tantivy"
        path.mkdir(exist_ok=True)
        self._index = tantivy.Index(self._schema, str(path))
        self._writer = self._index.writer(HEAP_BYTES, 1)

    def put(self, slots: Slots, texts: Sequence[str]) -> None:
        for slot, text in zip(slots.tolist(), texts, strict=True):
            document = self._library.Document()
            document.add_unsigned("slot", slot)
            document.add_text("text", text)
            self._writer.add_document(document)
        self._show()

    def remove(self, slots: Slots, texts: Sequence[str]) -> None:
        query = self._library.Query.term_set_query(self._schema, "slot", slots.tolist())
        self._writer.delete_documents_by_query(query)
        self._show()

    def search(self, words: Sequence[str], k: int, allowed: Allowed | None) -> list[int]:
        query, occur = self._library.Query, self._library.Occur
        wanted = query.boolean_query(
            [(occur.Should, query.term_query(self._schema, "text", word, "freq")) for word in words]
        )
        if allowed is not None:
            slots = query.term_set_query(self._schema, "slot", np.flatnonzero(allowed).tolist())
            wanted = query.boolean_query(
                [(occur.Must, wanted), (occur.Must, query.const_score_query(slots, 0))]
            )
        searcher = self._index.searcher()
        hits = searcher.search(wanted, k, count=False).hits
        return [searcher.doc(address)["slot"][0] for _, address in hits]

    def close(self) -> None:
        self._writer.wait_merging_threads()

    def _show(self) -> None:
        self._writer.commit()
        self._index.reload()


CANDIDATES: Final[dict[str, Callable[[Path], Candidate]]] = {"own": Own, "FTS5": Fts5}
if find_spec("tantivy") is not None:
    CANDIDATES["tantivy"] = Tantivy
