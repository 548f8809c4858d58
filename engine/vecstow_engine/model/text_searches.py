"""Searches for words, alone or fused with a search near a vector.

    TextSearch   the options, the text, and the search near a vector or a stored point, checked
    TextQuery    the same, once the vector is read

The words are searched for in all payload fields that have an index of the type `text`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from vecstow_engine.model.errors import InvalidInput, refused
from vecstow_engine.model.examples import NearSearch
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.searches import SearchOptions, SearchQuery

TEXT_CHARACTERS_MAX: Final = 4096
"""The limit of the text of one search."""
FUSION_MAX: Final = 1000.0
"""The limit of the weights and of k."""
RANK_CONSTANT: Final = 2.0
"""The default of k, which ranks the sample data's questions better than the 60 of the paper
(docs/benchmarks.md, hybrid)."""
TEXT_INDEX: Final = "text"
"""The type of a payload index over words."""


@dataclass(frozen=True, slots=True)
class Fusion:
    """The weights of the two lists that a fused search joins, and the constant that is added to ranks."""

    vector: float = 1.0
    text: float = 1.0
    k: float = RANK_CONSTANT

    def __post_init__(self) -> None:
        for name, value in (("vector", self.vector), ("text", self.text), ("k", self.k)):
            if not (math.isfinite(value) and 0 <= value <= FUSION_MAX):
                raise InvalidInput(
                    f"fusion.{name} is {value}; it must be from 0 to {FUSION_MAX:g}",
                    details=refused(f"fusion.{name}", value, 0 if value < 0 else FUSION_MAX),
                )
        if not self.vector and not self.text:
            raise InvalidInput(
                "fusion.vector and fusion.text are both 0; one of them must be above 0",
                details=refused("fusion.vector", 0, "above 0"),
            )


class TextQuery(SearchOptions, frozen=True, eq=False, kw_only=True):
    """One checked search for words, with the vector of the search that is fused with it."""

    text: str
    near: SearchQuery | None
    fusion: Fusion

    @property
    def excluded(self) -> frozenset[str]:
        """Ids of points that are no hits."""
        return frozenset() if self.near is None else self.near.excluded


@dataclass(frozen=True, slots=True, eq=False)
class TextSearch:
    """One checked search for words, some of whose vectors are not read yet."""

    options: SearchOptions
    text: str
    near: NearSearch | None = None
    fusion: Fusion = Fusion()

    @classmethod
    def checked(
        cls, options: SearchOptions, text: str, near: NearSearch | None = None, fusion: Fusion | None = None
    ) -> TextSearch:
        """Check the text against the collection; raise InvalidInput."""
        if len(text) > TEXT_CHARACTERS_MAX:
            raise InvalidInput(
                f"text has {len(text)} characters; at most {TEXT_CHARACTERS_MAX} are allowed",
                details=refused("text", len(text), TEXT_CHARACTERS_MAX),
            )
        if not text_fields(options.manifest):
            raise InvalidInput(
                f"text is given, and collection {options.manifest.name!r} has no payload index of the type "
                f"{TEXT_INDEX}",
                hint='declare one: "payload_indexes": [{"field": "...", "type": "text"}]',
                details=refused("text", text[:80], "a payload index of the type text"),
            )
        if options.diversity:
            raise InvalidInput(
                "diversity does not go with text: words give no distance between hits",
                details=refused("diversity", options.diversity, 0),
            )
        if fusion is not None and near is None:
            raise InvalidInput(
                "fusion weighs a vector against text, and the search has no vector and no id",
                details=refused("fusion", "given", "vector or id, and text"),
            )
        return cls(options, text, near, fusion or Fusion())

    @property
    def manifest(self) -> Manifest:
        """The manifest that the search was checked against."""
        return self.options.manifest

    def query(self, near: SearchQuery | None) -> TextQuery:
        """Return the search with the vector of `near`, which is None for words alone."""
        values = (getattr(self.options, name) for name in SearchOptions.__struct_fields__)
        return TextQuery(*values, text=self.text, near=near, fusion=self.fusion)


def text_fields(manifest: Manifest) -> list[str]:
    """Return the fields of a collection that are searched for words."""
    return [index.field for index in manifest.payload_indexes if index.type == TEXT_INDEX]
