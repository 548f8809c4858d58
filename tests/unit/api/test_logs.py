"""Log lines: structlog's and the standard library's come out alike, as JSON or text."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from vecstow_engine.api.logs import configure_logging


@pytest.fixture(autouse=True)
def _restored():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_json_lines_carry_their_fields():
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    structlog.stdlib.get_logger("vecstow_engine.x").info("checkpoint done", collection="docs", rows=3)
    logging.getLogger("vecstow_engine.y").warning("slow %s", "fsync", extra={"seconds": 2})
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["collection"], first["rows"]) == ("checkpoint done", "docs", 3)
    assert (first["level"], first["logger"]) == ("info", "vecstow_engine.x")
    assert (second["event"], second["seconds"], second["level"]) == ("slow fsync", 2, "warning")
    assert first["timestamp"].endswith("Z")


def test_lines_below_the_level_are_dropped():
    stream = io.StringIO()
    configure_logging("text", "warning", stream)
    structlog.stdlib.get_logger("a").info("no")
    logging.getLogger("b").info("no")
    logging.getLogger("uvicorn.error").warning("yes")
    assert stream.getvalue().count("\n") == 1
    assert "yes" in stream.getvalue()


def test_an_exception_is_one_json_line():
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    try:
        raise ValueError("why")
    except ValueError:
        structlog.stdlib.get_logger("a").exception("it failed")
    [line] = stream.getvalue().splitlines()
    assert "why" in json.dumps(json.loads(line)["exception"])
