"""The largest body of each route: the longest text of the largest allowed values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from vecstow_engine.model.errors import TooLarge, refused

KIB: Final = 1024
MIB: Final = 1024 * KIB


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """The largest size of a body in bytes, and a hint for the client of a larger one."""

    bytes_max: int
    hint: str | None = None

    def check(self, size: int) -> None:
        """Raise TooLarge for a body of at least `size` bytes when `size` is beyond the limit."""
        if size > self.bytes_max:
            raise TooLarge(
                f"the body has {size} bytes or more; the limit is {self.bytes_max}",
                hint=self.hint,
                details=refused("body", size, self.bytes_max),
            )

    def within(self, bytes_max: int) -> BodyLimit:
        """Return this limit, lowered to `bytes_max` when it is above."""
        return replace(self, bytes_max=min(self.bytes_max, bytes_max))


SMALL: Final = BodyLimit(64 * KIB)
"""A body of a few names and numbers; also the limit of routes without a body."""

_ROOT: Final = "/collections/{collection}"
_POINT: Final = BodyLimit(4 * MIB, "shorten the numbers of the vector, or the metadata")
"""A vector of 65,536 numbers of 24 bytes, and a payload of 256 KiB."""
_IDS: Final = BodyLimit(12 * MIB, "ask for fewer ids at a time")
"""10,000 ids of 256 characters of four bytes."""
BODY_LIMITS: Final[Mapping[tuple[str, str], BodyLimit]] = {
    # 64 payload indexes whose names have 1,024 characters
    ("POST", "/collections"): BodyLimit(512 * KIB, "declare fewer payload_indexes"),
    # a vector of 65,536 numbers of 24 bytes, and a filter of 1 MiB
    ("POST", f"{_ROOT}/search"): BodyLimit(4 * MIB, "shorten the numbers of the vector, or the filter"),
    ("POST", f"{_ROOT}/vectors"): _POINT,
    ("PUT", f"{_ROOT}/vectors/{{id}}"): _POINT,
    ("POST", f"{_ROOT}/vectors/get"): _IDS,
    ("POST", f"{_ROOT}/vectors/delete"): _IDS,
}
"""The limits by method and template. For `POST …/vectors/batch` and `POST /state/refresh` settings apply."""

BATCH: Final = ("POST", f"{_ROOT}/vectors/batch")
BATCH_HINT: Final = "send smaller batches"
REFRESH: Final = ("POST", "/state/refresh")
REFRESH_HINT: Final = "report fewer findings, or raise VECSTOW_FINDINGS_BYTES_MAX"
