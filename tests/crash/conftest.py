"""Keep what the proof changes in its own processes away from the tests that run in this one."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True, scope="module")
def logging_as_it_was() -> Iterator[None]:
    """The proof silences the engine, a whole module of tests at a time."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
