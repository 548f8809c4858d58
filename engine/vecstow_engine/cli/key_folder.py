"""The folder of `vecstow keys`: the engine's list in keys.yaml, and each key in a file of the key's name.

`keys.yaml` is written last, so an interrupted change does not affect the keys that the engine accepts.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from vecstow_engine.api.key_file import FILE_BYTES_MAX, parse_keys
from vecstow_engine.cli.input_files import read_bytes
from vecstow_engine.model.errors import Conflict, InvalidInput, NotFound
from vecstow_engine.storage import files

KEYS_FILE: Final = "keys.yaml"
KEY_BYTES: Final = 32
OLD: Final = ".old"
"""The ending of the name of a replaced key that the engine still accepts."""
CHART_KEYS: Final = ("sidecar", "manager", "test")
"""The keys of the chart's own programs, which the chart takes from the Secret."""

_RESERVED_ENDINGS: Final = {
    OLD: "vecstow keys rotate gives such a name to the key before, and vecstow keys retire removes it",
    files.TEMPORARY_SUFFIX: "a file of that name is overwritten whenever the file without the ending changes",
}
_HINT_LISTED: Final = "vecstow keys add makes one more key, vecstow keys rotate changes one"
_HINT_UNLISTED: Final = f"{KEYS_FILE} has no key of that name: move the file away, then make the key again"

_HEAD: Final = "# The keys that the engine lets in (docs/api.md, Keys). `vecstow keys` writes this file.\n"
_WANTED: Final = re.compile(r"(?P<name>[^=:]+)=(?P<role>[^=:]+)(?::(?P<patterns>.+))?")

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key to make."""

    name: str
    role: str
    patterns: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Wanted:
        """Return the key that `NAME=ROLE` or `NAME=ROLE:PATTERN,PATTERN` describes. Raises InvalidInput."""
        if (found := _WANTED.fullmatch(text)) is None:
            raise InvalidInput(f"{text[:80]!r} is no NAME=ROLE or NAME=ROLE:PATTERN,PATTERN")
        patterns = found["patterns"]
        return cls(found["name"], found["role"], tuple(patterns.split(",")) if patterns else ())

    def entry(self, key: str) -> Entry:
        """Return the entry of `keys.yaml` for this key."""
        limited = {"collections": list(self.patterns)} if self.patterns else {}
        return {"name": self.name, "role": self.role} | limited | {"sha256": _digest(key)}


DEFAULTS: Final = (
    Wanted("sidecar", "sidecar"),
    Wanted("manager", "monitor"),
    Wanted("test", "write", ("vecstow-test-*",)),
    Wanted("admin", "admin"),
)


class KeyFolder:
    """One folder. Methods that read it raise InvalidInput, which names file, entry and field, but no key."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def keys_file(self) -> Path:
        """Return the path of the list of keys, which the engine reads."""
        return self.path / KEYS_FILE

    def add(self, wanted: list[Wanted], *, new: bool = False) -> None:
        """Make the wanted keys and add them to the list; `new`: make the folder and the list, too.

        Raises Conflict when a file exists already, and InvalidInput for a key that the engine would refuse.
        """
        present = [] if new else self.entries()
        keys = [secrets.token_hex(KEY_BYTES) for _ in wanted]
        entries = [each.entry(key) for each, key in zip(wanted, keys, strict=True)]
        self._content(entries)  # checks the names before they become paths: a name may hold a slash
        names = [each.name for each in wanted]
        for name in names:
            for ending, reason in _RESERVED_ENDINGS.items():
                if name.endswith(ending):
                    raise InvalidInput(f"a key cannot be called {name!r}: {reason}")
        listed = {KEYS_FILE, *(entry["name"] for entry in present)}
        for name in [KEYS_FILE, *names] if new else names:
            if (self.path / name).exists():
                hint = _HINT_LISTED if name in listed else _HINT_UNLISTED
                raise Conflict(f"{self.path / name} exists already", hint=hint)
        self._write([*present, *entries], dict(zip(names, keys, strict=True)))

    def entries(self) -> list[Entry]:
        """Return the entries of `keys.yaml`, in order."""
        raw = read_bytes(self.keys_file, FILE_BYTES_MAX, f"keys file {self.keys_file}")
        parse_keys(raw, str(self.keys_file))
        entries: list[Entry] = yaml.load(raw.decode(), yaml.BaseLoader)["keys"]
        return entries

    def rotate(self, name: str) -> None:
        """Make a new key for `name`; the engine accepts the present key until `retire`.

        Raises NotFound, and Conflict while an earlier key is still accepted.
        """
        entries = self.entries()
        place = self._place(entries, name)
        if any(entry["name"] == name + OLD for entry in entries):
            raise Conflict(
                f"{self.keys_file} has {name + OLD!r}: the key before is let in still",
                hint=f"vecstow keys retire {name}, when no client uses it any more",
            )
        key = secrets.token_hex(KEY_BYTES)
        old = entries[place]
        shared = {field: value for field, value in old.items() if field not in ("key", "sha256")}
        entries[place : place + 1] = [shared | {"sha256": _digest(key)}, old | {"name": name + OLD}]
        self._write(entries, {name: key})

    def retire(self, name: str) -> None:
        """Remove the key that `rotate` replaced. Raises NotFound when there is none."""
        entries = self.entries()
        del entries[self._place(entries, name + OLD)]
        self._write(entries, {})

    def secret(self, name: str, namespace: str | None) -> dict[str, Any]:
        """Return the Secret that the chart takes: the list, and the keys of the chart's own programs.

        Raises InputFileError for a key whose file is missing: the Secret would lose that key.
        """
        known = {entry["name"] for entry in self.entries()}
        parts = [KEYS_FILE, *(each for each in CHART_KEYS if each in known)]
        data = {part: read_bytes(self.path / part, FILE_BYTES_MAX, str(self.path / part)) for part in parts}
        metadata = {"name": name} | ({} if namespace is None else {"namespace": namespace})
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "type": "Opaque",
            "data": {part: base64.b64encode(content).decode() for part, content in data.items()},
        }

    def _place(self, entries: list[Entry], name: str) -> int:
        for place, entry in enumerate(entries):
            if entry["name"] == name:
                return place
        raise NotFound(f"{self.keys_file} has no key {name[:80]!r}")

    def _content(self, entries: list[Entry]) -> bytes:
        """Return the content of `keys.yaml`; raise InvalidInput for an entry that the engine would refuse."""
        lines = (
            yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=FILE_BYTES_MAX)
            for entry in entries
        )
        content = (_HEAD + "keys:\n" + "".join(f"- {line}" for line in lines)).encode()
        parse_keys(content, str(self.keys_file))
        if any(entry["name"] == KEYS_FILE for entry in entries):
            raise InvalidInput(f"a key cannot be called {KEYS_FILE!r}: the list has that name")
        return content

    def _write(self, entries: list[Entry], keys: dict[str, str]) -> None:
        """Write the new keys by name, then the list. Raises InvalidInput before anything is written."""
        content = self._content(entries)
        files.make_folders(self.path, files.SECRET_FOLDER_MODE)
        for name, key in keys.items():
            files.replace_file(self.path / name, [key.encode()], files.SECRET_FILE_MODE)
        files.replace_file(self.keys_file, [content], files.SECRET_FILE_MODE)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
