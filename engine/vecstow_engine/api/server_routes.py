"""The routes of the server as a whole: state, hold, figures."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Body, Response
from fastapi import Request as FastRequest
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from vecstow_engine.api.answers import Media, encode
from vecstow_engine.api.context import DecodedRoute, InContext
from vecstow_engine.api.schemas import Envelope, Hold, HoldBody, ServerStats
from vecstow_engine.service.hold import UNKNOWN_NAMES

router = APIRouter(route_class=DecodedRoute)


@router.get("/stats", response_model=Envelope[ServerStats], tags=["server"], summary="Totals of the server")
async def stats(context: InContext) -> Response:
    """Counts, and sizes in bytes."""
    return context.reply(await context.workers.quick(context.engine.server_stats))


@router.get(
    "/state",
    response_model=Envelope[dict[str, Any]],
    tags=["server"],
    summary="State for the operator",
    responses={304: {"description": "The ETag is the client's"}},
)
async def state(context: InContext, request: FastRequest) -> Response:
    """Identity of the engine and state of each collection; 304 while the ETag is the client's.

    A key that is for some collections sees these, and no findings.
    """
    document: Any = await context.workers.quick(context.engine.state_document)
    if context.is_limited:
        rows = [row for row in document["collections"] if context.reaches(row["name"])]
        failure = document["failure"] and UNKNOWN_NAMES
        aliases = [row for row in document["aliases"]["problems"] if context.reaches(row["collection"])]
        count = sum(len(row.get("aliases", ())) for row in rows) + len(aliases)
        document = document | {"collections": rows, "findings": {}, "failure": failure}
        document["aliases"] = document["aliases"] | {"count": count, "problems": aliases}
    digest = hashlib.blake2b(encode(document, Media.JSON), digest_size=16)
    etag = f'"{digest.hexdigest()}"'
    sent = request.headers.get("if-none-match", "").split(",")
    if etag in [tag.strip().removeprefix("W/") for tag in sent]:
        return Response(status_code=304, headers={"etag": etag})
    response = context.reply(document)
    response.headers["etag"] = etag
    return response


@router.post(
    "/state/refresh", response_model=Envelope[str], tags=["server"], summary="Look at the manifests again"
)
async def refresh(context: InContext, findings: Annotated[dict[str, Any] | None, Body()] = None) -> Response:
    """The sidecar's poke after it wrote manifests; its findings come out again in GET /state."""
    await context.workers.quick(context.engine.refresh, findings or {})
    return context.reply("refreshed")


@router.post(
    "/hold", response_model=Envelope[Hold], tags=["server"], summary="Hold the files still for a copy"
)
async def hold(context: InContext, body: Annotated[HoldBody | None, Body()] = None) -> Response:
    """Writes go on; only the log changes until the hold ends or is released."""
    until = await context.workers.long(None, context.engine.hold.begin, (body or HoldBody()).seconds)
    return context.reply({"until": until, "message": "holding"})


@router.delete("/hold", response_model=Envelope[Hold], tags=["server"], summary="Release the hold")
async def release_hold(context: InContext) -> Response:
    """No error when there is none."""
    await context.workers.quick(context.engine.hold.end)
    return context.reply({"until": None, "message": "released"})


@router.get("/metrics", tags=["server"], summary="Metrics for Prometheus", response_class=Response)
async def metrics(context: InContext, request: FastRequest) -> Response:
    """Text in Prometheus' exposition format, without the envelope."""
    text = await context.workers.quick(generate_latest, request.app.state.metrics.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
