"""The health routes, without FastAPI: a process answers them from its first moment.

A probe must never wait for the parts that it checks: these routes use no file and no thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from vecstow_engine.api.envelope import Answer, success
from vecstow_engine.api.errors import MethodNotAllowed
from vecstow_engine.api.paths import parse_query
from vecstow_engine.api.request import Request
from vecstow_engine.model.errors import Recovering, Unavailable, VecstowError

if TYPE_CHECKING:
    from vecstow_engine.service.engine import Engine


def check_ready(engine: Engine) -> None:
    """200 once the volume is discovered; a collection in replay does not hide the others."""
    if not engine.ready:
        raise Recovering("the volume is being discovered", retry_after_seconds=1)


def _check_takes_more(engine: Engine) -> None:
    """For the probe that decides whether a Service sends here: an engine that ends answers, and says no."""
    check_ready(engine)
    if engine.leaving:
        raise Unavailable("the engine is shutting down")


def _check_live(engine: Engine) -> None:
    """Answers from the first moment; fails only when a restart would help."""
    if not engine.live:
        raise Unavailable("the engine stopped working", hint="restart it; the log has the reason")


def _check_all_ready(engine: Engine) -> None:
    """200 when no collection is recovering or read-only; for people and tests, not for probes."""
    check_ready(engine)
    if waiting := engine.not_ready():
        raise Recovering(f"{len(waiting)} collections are not ready", details={"not_ready": waiting})


HEALTH_ROUTES: Final[dict[str, Callable[[Engine], None]]] = {
    "/health/live": _check_live,
    "/ready": _check_takes_more,
    "/health/ready": _check_all_ready,
    "/health": check_ready,
    "/health/check": check_ready,
}
"""The check of each path; a check raises while the answer is not `OK`."""


def health_answer(engine: Engine, request: Request, *, names: bool = True) -> Answer:
    """Return the answer `OK`, as d-vecDB gives it; raise the error of the path's check.

    Without `names` the error loses its details, which may name collections.
    """
    if request.method != "GET":
        raise MethodNotAllowed(request.method, request.path, "GET, HEAD")
    parse_query(request.query, ())
    try:
        HEALTH_ROUTES[request.path](engine)
    except VecstowError as unwell:
        if not names:
            unwell.details = {}
        raise
    return success("OK", request.answer_media)
