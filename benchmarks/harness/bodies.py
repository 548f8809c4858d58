"""Requests that carry vectors, in JSON and in MessagePack.

Numbers in JSON have the shortest form that gives the same float32, about nine digits, as embedding services
send them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from benchmarks.harness.dataset import Rows
from benchmarks.harness.wire import MSGPACK, build_request

BATCH_ROWS: Final = 1000


def insert_requests(
    collection: str, rows: Rows, media: str, first_id: int = 0, batch_rows: int = BATCH_ROWS
) -> Iterator[bytes]:
    """Batches of rows without payload; a row's id is its number, counted from `first_id`."""
    for start in range(0, len(rows), batch_rows):
        part = rows[start : start + batch_rows]
        ids = [str(first_id + start + line) for line in range(len(part))]
        body = _packed_batch(ids, part) if media == MSGPACK else _json_batch(ids, part)
        yield build_request("POST", f"/collections/{collection}/vectors/batch", body, media)


def search_requests(collection: str, queries: Rows, media: str, k: int) -> list[bytes]:
    """One search per query."""
    if media == MSGPACK:
        bodies = [
            msgspec.msgpack.encode({"vector": query.astype("<f4").tobytes(), "limit": k}) for query in queries
        ]
    else:
        bodies = [b'{"vector":%s,"limit":%d}' % (line, k) for line in _json_rows(queries)]
    return [build_request("POST", f"/collections/{collection}/search", body, media) for body in bodies]


def _packed_batch(ids: Sequence[str], rows: Rows) -> bytes:
    return msgspec.msgpack.encode({"ids": ids, "vectors": rows.astype("<f4").tobytes()})


def _json_batch(ids: Sequence[str], rows: Rows) -> bytes:
    points = zip(ids, _json_rows(rows), strict=True)
    return b'{"vectors":[%s]}' % b",".join(
        [b'{"id":"%s","data":%s}' % (i.encode(), row) for i, row in points]
    )


def _json_rows(rows: Rows) -> Iterator[bytes]:
    for row in rows:
        yield b"[%s]" % ",".join(map(str, row)).encode()
