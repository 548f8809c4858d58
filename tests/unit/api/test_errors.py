"""The one table from errors to HTTP: complete, and the same as the page that documents it."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from vecstow_engine.api import errors as api_errors
from vecstow_engine.api.errors import STATUS, error_document, error_headers, status_of, unexpected_error
from vecstow_engine.model import errors as model_errors
from vecstow_engine.model.errors import Busy, DamagedFile, Quarantined, Recovering, VecstowError

PAGE = Path(__file__).parents[3] / "docs" / "api.md"
KINDS = {
    kind.__name__: kind
    for module in (model_errors, api_errors)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, VecstowError)
}


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("InvalidInput", 400),
        ("WrongShape", 422),
        ("TooLarge", 413),
        ("NotFound", 404),
        ("Conflict", 409),
        ("Busy", 429),
        ("Unavailable", 503),
        ("Recovering", 503),
        ("ReadOnly", 503),
        ("Quarantined", 503),
        ("Foreign", 503),
        ("DiskFull", 507),
        ("OutcomeUnknown", 503),
        ("StorageError", 500),
        ("NewerFormat", 500),
        ("Malformed", 400),
        ("Unauthenticated", 401),
        ("Forbidden", 403),
        ("UnsupportedMedia", 415),
        ("SlowBody", 408),
        ("UnknownRoute", 404),
    ],
)
def test_every_kind_of_error_has_its_status(kind, status):
    assert status_of(KINDS[kind]("why")) == status


def test_every_kind_of_error_has_a_line_of_its_own_or_its_parents():
    for kind in KINDS.values():
        assert set(kind.__mro__) & set(STATUS), kind


def test_the_page_names_each_kind_beside_its_status():
    rows = re.findall(r"^\| (\d{3}) \| (`.*?) \|", PAGE.read_text(), re.MULTILINE)
    shown = {(int(status), kind) for status, kinds in rows for kind in re.findall(r"`(\w+)`", kinds)}
    assert shown
    for status, kind in shown:
        found = next(STATUS[parent] for parent in KINDS[kind].__mro__ if parent in STATUS)
        assert found == status, kind
    never_answered = {"VolumeHeld", "VolumeRefused", "VolumeServed"}
    assert {kind for _, kind in shown} == set(KINDS) - never_answered


def test_details_carry_what_the_error_knows():
    error = Quarantined("broken", collection="docs", hint="vecstow check docs", details={"offset": 7})
    assert error_document(error)["details"] == {
        "kind": "Quarantined",
        "offset": 7,
        "collection": "docs",
        "hint": "vecstow check docs",
    }


def test_damage_names_file_and_offset():
    details = error_document(DamagedFile("bad CRC", file="vectors.bin", offset=4096))["details"]
    assert (details["file"], details["offset"]) == ("vectors.bin", 4096)


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        pytest.param(Busy("full"), [(b"retry-after", b"1")], id="busy"),
        pytest.param(Recovering("replay"), [(b"retry-after", b"1")], id="recovering"),
        pytest.param(Busy("full", retry_after_seconds=9), [(b"retry-after", b"9")], id="its own"),
        pytest.param(Quarantined("broken"), [], id="waiting does not help"),
        pytest.param(KINDS["Unauthenticated"]("?"), [(b"www-authenticate", b"Bearer")], id="want of a key"),
        pytest.param(KINDS["Forbidden"]("no"), [], id="no other key is asked for"),
    ],
)
def test_the_headers_say_what_would_help(error, headers):
    assert error_headers(error) == headers


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        pytest.param(
            OSError(errno.EMFILE, "Too many open files", "vectors.bin"), 500,
            "answering the request failed: [Errno 24] Too many open files: 'vectors.bin'", id="a call failed",
        ),
        pytest.param(OSError(errno.ENOSPC, "No space left"), 507, "the volume is full", id="no room"),
        pytest.param(RuntimeError("secret detail"), 500, "internal error", id="a mistake of ours"),
    ],
)  # fmt: skip
def test_what_nobody_foresaw_is_named_when_the_system_named_it(error, status, message):
    answered = unexpected_error(error)
    assert status_of(answered) == status
    assert answered.message.startswith(message)
