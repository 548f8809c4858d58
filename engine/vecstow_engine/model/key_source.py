"""The API key that a program sends: where it comes from, and which characters it may have.

The command line and the operator share these rules. Their callers read the file: nothing here opens one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vecstow_engine.model.errors import InvalidInput

KEY_VARIABLE: Final = "VECSTOW_API_KEY"
KEY_FILE_VARIABLE: Final = "VECSTOW_KEY_FILE"
KEY_FILE_BYTES_MAX: Final = 4096
_SENDABLE: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class KeySource:
    """The place of a key: a file, or the environment with the key itself."""

    file: Path | None = None
    text: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """The place, for messages."""
        return KEY_VARIABLE if self.file is None else f"key file {self.file}"

    def key(self, read: Callable[[Path], bytes]) -> str:
        """Return the key; `read` returns the content of a file. Raises InvalidInput, which quotes no key.

        The file is not decoded strictly: the error of a strict decoder would quote a part of the key.
        """
        text = self.text
        if self.file is not None:
            text = read(self.file).decode("utf-8-sig", "replace").strip()
        if _SENDABLE.fullmatch(text) is None:
            raise InvalidInput(f"{self.name} must hold one key: printable ASCII characters without spaces")
        return text


def find_key_source(file: Path | None, environment: Mapping[str, str]) -> KeySource | None:
    """Return the file that was given, else the environment's key or key file; None: there is no key."""
    if file is not None:
        return KeySource(file)
    if key := environment.get(KEY_VARIABLE):
        return KeySource(text=key)
    if named := environment.get(KEY_FILE_VARIABLE):
        return KeySource(Path(named))
    return None
