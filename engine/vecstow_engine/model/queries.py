"""The kinds of searches: as they are asked for, and once their vectors are read."""

from __future__ import annotations

from typing import TypeAlias

from vecstow_engine.model.examples import ExampleSearch, NearQuery, NearSearch
from vecstow_engine.model.searches import SearchOptions
from vecstow_engine.model.text_searches import TextQuery, TextSearch

Search: TypeAlias = NearSearch | TextSearch
"""A search as it is asked for."""
Query: TypeAlias = NearQuery | TextQuery
"""A search whose vectors are all known."""


def options_of(search: Search) -> SearchOptions:
    """Return the options of a search."""
    return search.options if isinstance(search, ExampleSearch | TextSearch) else search
