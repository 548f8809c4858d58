"""The health routes, without FastAPI: a process answers them from its first moment.

A probe must never wait for the parts that it checks: these routes use no file and no thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from vecstow_engine.api.access import authorise, identify
from vecstow_engine.api.answers import Answer, success
from vecstow_engine.api.errors import Forbidden, MethodNotAllowed, Unauthenticated
from vecstow_engine.api.paths import parse_query
from vecstow_engine.api.request import Request
from vecstow_engine.model.errors import ReadOnly, Recovering, Unavailable, VecstowError
from vecstow_engine.service.lifecycle import State

if TYPE_CHECKING:
    from vecstow_engine.api.key_file import KeyFile
    from vecstow_engine.service.engine import Engine


def discovering() -> Recovering:
    """Return the error of all routes while the volume is being discovered."""
    return Recovering("the volume is being discovered", retry_after_seconds=1)


def _check_ready(engine: Engine) -> None:
    """200 once the volume is discovered; a collection in replay does not hide the others."""
    if not engine.discovered:
        raise discovering()


def _check_takes_more(engine: Engine) -> None:
    """200 until the engine stops; for the probe that decides whether a Service sends requests here."""
    _check_ready(engine)
    if engine.leaving:
        raise Unavailable("the engine is shutting down")


def _check_live(engine: Engine) -> None:
    """200 from the first moment on; fails only when a restart would help."""
    if not engine.live:
        raise Unavailable("the engine stopped working", hint="restart it; the log has the reason")


def _check_all_ready(engine: Engine) -> None:
    """200 when no collection is recovering or read-only; for people and tests, not for probes.

    Only a Recovering gets Retry-After: a read-only collection does not become ready by waiting.
    """
    _check_ready(engine)
    if waiting := engine.not_ready():
        kind = ReadOnly if State.READ_ONLY in waiting.values() else Recovering
        raise kind(f"{len(waiting)} collections are not ready", details={"not_ready": waiting})


HEALTH_ROUTES: Final[dict[str, Callable[[Engine], None]]] = {
    "/health/live": _check_live,
    "/ready": _check_takes_more,
    "/health/ready": _check_all_ready,
    "/health": _check_ready,
    "/health/check": _check_ready,
}
"""The check of each path; a check raises while the answer is not `OK`."""


def health_answer(engine: Engine, request: Request, keys: KeyFile | None) -> Answer:
    """Return the answer `OK`, as d-vecDB gives it; raise the error of the path's check.

    The route needs no key. The error loses its details, which may name collections, for a request without a
    key that may read the metrics.
    """
    if request.method != "GET":
        raise MethodNotAllowed(request.method, request.path, "GET, HEAD")
    parse_query(request.query, ())
    try:
        HEALTH_ROUTES[request.path](engine)
    except VecstowError as unwell:
        if keys is not None and not _may_be_told_names(request, keys):
            unwell.details = {}
        raise
    return success("OK", request.answer_media)


def _may_be_told_names(request: Request, keys: KeyFile) -> bool:
    try:
        authorise(identify(keys.ring, request.scope["headers"]), "GET", "/metrics")
    except (Unauthenticated, Forbidden):
        return False
    return True
