"""Grouped searches: the nearest points of each value of a payload field, and the groups that answer them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from vecstow_engine.model.errors import InvalidInput, refused
from vecstow_engine.model.examples import NearSearch
from vecstow_engine.model.fields import integer
from vecstow_engine.model.filters import ID_FIELD
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.payloads import check_field
from vecstow_engine.model.queries import options_of
from vecstow_engine.model.searches import LIMIT_MAX, Hit, check_vector_count

GROUP_SIZE_DEFAULT: Final = 1
Value: TypeAlias = str | int | float | bool
Key: TypeAlias = tuple[bool, Value]


class Group(msgspec.Struct, frozen=True, eq=False):
    """One value of the field, and the nearest points that have it, nearest first."""

    value: Value
    hits: list[Hit]


@dataclass(frozen=True, slots=True, eq=False)
class GroupSearch:
    """One checked search whose `limit` and `offset` count groups."""

    search: NearSearch
    group_by: str
    """The field whose values make the groups, with dots for a nested one."""
    group_size: int = GROUP_SIZE_DEFAULT
    """The most hits of a group."""

    @classmethod
    def checked(
        cls, search: NearSearch, group_by: object, group_size: int = GROUP_SIZE_DEFAULT
    ) -> GroupSearch:
        """Check the field and the size of a group; raise InvalidInput, WrongShape or TooLarge."""
        name = check_field(group_by, "group_by")
        if name == ID_FIELD:
            raise InvalidInput(
                f"group_by is {ID_FIELD!r}; ids make no groups", details=refused("group_by", name)
            )
        integer(group_size, "group_size", 1, LIMIT_MAX)
        options = options_of(search)
        if options.hits_read * group_size > LIMIT_MAX:
            raise InvalidInput(
                f"group_size is {group_size} for {options.hits_read} groups, those of offset included; "
                f"together they have at most {LIMIT_MAX} hits",
                details=refused("group_size", group_size, LIMIT_MAX // options.hits_read),
            )
        if options.with_vectors:
            check_vector_count(options.limit * group_size, options.manifest, "group_size")
        return cls(search, name, group_size)

    @property
    def manifest(self) -> Manifest:
        """The manifest that the search was checked against."""
        return self.search.manifest


def group_values(value: Any) -> Iterable[Value]:
    """Return the values that a point with this value of the field is grouped under.

    An array counts with each of its elements. Null, objects and arrays inside of arrays make no group.
    """
    found = value if isinstance(value, list) else [value]
    return {group_key(each): each for each in found if isinstance(each, str | int | float)}.values()


def group_key(value: Value) -> Key:
    """Return the key that equal values share: `1` and `1.0` are equal, `1` and `true` are not."""
    return isinstance(value, bool), value
