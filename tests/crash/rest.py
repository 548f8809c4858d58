"""REST in few words, for threads that outlive the server: one connection, opened again when it broke."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import msgspec

Stored = tuple[bytes, dict[str, Any] | None]
"""A point as a client sends and gets it: little-endian float32, and the payload."""

IDS_OF_A_REQUEST = 5_000
_PACKED = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}


class Refused(Exception):
    """The server answered with an error. `kind` is its class; empty when the answer was no envelope."""

    def __init__(self, status: int, message: str, kind: str = "") -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.kind = kind


class Unreached(OSError):
    """Raised when no process listens there, or the server is gone: nothing was sent."""


class Rest:
    """Requests to one engine, from one thread. A broken connection is an OSError or an HTTPException."""

    def __init__(
        self, port: int, timeout_seconds: float = 60.0, *, host: str = "127.0.0.1", key: str | None = None
    ) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=timeout_seconds)
        self._key = {} if key is None else {"api-key": key}

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The data of the answer; raises Refused."""
        raw = None if body is None else json.dumps(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        return self._request(method, path, raw, headers, json.loads)

    def packed(self, method: str, path: str, body: object) -> Any:
        """The same in MessagePack."""
        return self._request(method, path, msgspec.msgpack.encode(body), _PACKED, msgspec.msgpack.decode)

    def create(
        self, name: str, dimension: int, metric: str = "Euclidean", vector_type: str = "Float32"
    ) -> None:
        shape = {"dimension": dimension, "distance_metric": metric, "vector_type": vector_type}
        self.call("POST", "/collections", {"name": name} | shape)

    def put_many(self, name: str, points: dict[str, Stored]) -> None:
        """Store points, by one batch."""
        body = {
            "ids": list(points),
            "vectors": b"".join(data for data, _ in points.values()),
            "metadata": [payload for _, payload in points.values()],
        }
        self.packed("POST", f"/collections/{name}/vectors/batch", body)

    def put(self, name: str, point_id: str, point: Stored) -> None:
        """Store one point under its path."""
        body = {"data": point[0], "metadata": point[1]}
        self.packed("PUT", f"/collections/{name}/vectors/{quote(point_id, safe='')}", body)

    def delete_many(self, name: str, ids: list[str]) -> None:
        self.packed("POST", f"/collections/{name}/vectors/delete", {"ids": ids})

    def get_many(self, name: str, ids: Iterable[str]) -> dict[str, Stored]:
        """The points of these ids that there are."""
        wanted = list(ids)
        found: dict[str, Stored] = {}
        for start in range(0, len(wanted), IDS_OF_A_REQUEST):
            part = wanted[start : start + IDS_OF_A_REQUEST]
            points = self.packed("POST", f"/collections/{name}/vectors/get", {"ids": part})
            for point_id, point in zip(part, points, strict=True):
                if point is not None:
                    assert point["id"] == point_id
                    found[point_id] = point["data"], point["metadata"]
        return found

    def search(self, name: str, vector: bytes, limit: int = 10, ef_search: int = 200) -> list[dict[str, Any]]:
        body = {"vector": vector, "limit": limit, "ef_search": ef_search}
        hits: list[dict[str, Any]] = self.packed("POST", f"/collections/{name}/search", body)
        return hits

    def describe(self, name: str) -> dict[str, Any]:
        facts: dict[str, Any] = self.call("GET", f"/collections/{name}")
        return facts

    def text(self, path: str) -> str:
        """An answer that is no document."""
        return str(self._request("GET", path, None, {}, lambda content: {"data": content.decode()}))

    def __enter__(self) -> Rest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the connection; the next request opens another one."""
        self._connection.close()

    def _request(self, method: str, path: str, raw: Any, headers: dict[str, str], decode: Any) -> Any:
        if self._connection.sock is None:
            try:
                self._connection.connect()
            except OSError as error:
                raise Unreached(*error.args) from error
        try:
            self._connection.request(method, path, raw, headers | self._key)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        if response.status != 200:
            raise _refusal(response.status, content, decode)
        return decode(content)["data"]


def _refusal(status: int, content: bytes, decode: Any) -> Refused:
    try:
        document = decode(content)
        return Refused(status, str(document), document["details"]["kind"])
    except (ValueError, TypeError, KeyError):
        return Refused(status, content.decode("utf-8", "replace"))
