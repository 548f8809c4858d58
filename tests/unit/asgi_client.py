"""A client that speaks ASGI to an application, byte for byte: no URL is normalised on its way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from tests.unit.fake_engine import FakeEngine
from vecstow_engine.api.key_file import KeyFile
from vecstow_engine.api.server import create_app
from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.metrics import DistanceMetric
from vecstow_engine.service.engine import Engine


@dataclass
class Reply:
    """The answer to a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> Any:
        return self.json["data"]

    @property
    def packed(self) -> Any:
        return msgspec.msgpack.decode(self.body)


class AsgiClient:
    """Calls an application with raw paths and whole or chunked bodies."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def call(
        self,
        method: str,
        target: str,
        value: Any = None,
        *,
        body: bytes | None = None,
        chunks: list[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        path, _, query = target.partition("?")
        if value is not None:
            body = json.dumps(value).encode()
        sent = {"host": "test"} | {name.lower(): text for name, text in (headers or {}).items()}
        if body is not None:
            chunks = [body]
            sent.setdefault("content-length", str(len(body)))
            sent.setdefault("content-type", "application/json")
        elif chunks is not None:
            sent.setdefault("transfer-encoding", "chunked")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode("latin-1"),
            "query_string": query.encode(),
            "root_path": "",
            "scheme": "http",
            "server": ("test", 80),
            "client": ("test", 1),
            "headers": [(name.encode(), text.encode()) for name, text in sent.items()],
        }
        return await self._run(scope, list(chunks or []))

    async def _run(self, scope: dict[str, Any], chunks: list[bytes]) -> Reply:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if chunks:
                return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        headers = {name.decode().lower(): text.decode() for name, text in sent[0]["headers"]}
        return Reply(sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]))


def docs_service(
    metric: str = "Euclidean",
    dimension: int = 3,
    keys: KeyFile | None = None,
    body_bytes_max: int = 2_000_000,
    **settings: Any,
) -> tuple[AsgiClient, FakeEngine]:
    """A client of an application over a fake engine that has one empty collection, `docs`."""
    engine = FakeEngine(body_bytes_max)
    engine.create(Manifest(name="docs", dimension=dimension, distance_metric=DistanceMetric(metric)))
    return AsgiClient(create_app(cast(Engine, engine), HttpSettings(**settings), keys=keys)), engine
