"""The file of API keys: one YAML (or JSON) document, whose keys are in force, also after it changes.

    keys:
      - name: search-app
        role: read
        collections: ["docs", "team-a-*"]   # optional: without it, all of them
        sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      - name: sidecar
        role: sidecar
        key: 3c1f4b0f5a…                    # the key itself, instead of its digest

No message quotes text that may contain a key. Values that are long enough to be a key, and the messages of
the YAML parser, are left out.

The whole file is read every second through its links. A Secret that is mounted as a folder is a link that
Kubernetes replaces, so neither a watch of the file nor its times are reliable.

New content is taken when two reads in a row return it. An editor that writes in place may be half-way, where
an entry still lacks its `collections`.
"""

from __future__ import annotations

import asyncio
import fnmatch
import hashlib
import re
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog
import yaml

from vecstow_engine.api.access import (
    KEY_CHARACTERS_MAX,
    KEY_CHARACTERS_MIN,
    LIMITABLE,
    Key,
    KeyRing,
    Role,
)
from vecstow_engine.model.errors import InvalidInput, VecstowError

LOOK_SECONDS: Final = 1.0
FILE_BYTES_MAX: Final = 128 * 1024
KEYS_MAX: Final = 256
PATTERNS_MAX: Final = 64
FIELDS: Final = ("name", "role", "collections", "key", "sha256")

_KEY: Final = re.compile(rf"[!-~]{{{KEY_CHARACTERS_MIN},{KEY_CHARACTERS_MAX}}}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_PATTERN: Final = re.compile(r"[A-Za-z0-9_*?-]{1,64}")

Fields = dict[str, yaml.Node]
log = structlog.stdlib.get_logger(__name__)


class KeyFile:
    """The keys of the file's last valid content."""

    def __init__(self, path: Path) -> None:
        """Read the file; raise InvalidInput when it is missing or invalid."""
        self.path = path
        self._seen = self._judged = _read(path)
        self.ring: KeyRing = parse_keys(self._seen, str(path))
        """The keys in force. A new object replaces the old one, so that any thread may use it."""
        self.loaded_at = time.time()
        self._refused: str | None = None
        """Why the file's present content is not in force; None when it is. Logged once."""

    @property
    def is_sound(self) -> bool:
        """Whether the file's present content is in force."""
        return self._refused is None

    async def follow(self) -> None:
        """Call `look` every second, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Take the file's content if the last look found the same.

        Raises nothing: an error is logged, and the keys in force stay.
        """
        try:
            found = _read(self.path)
        except VecstowError as error:
            self._refuse(error.message)
            self._judged = b""
            return
        if found == self._seen and found != self._judged:
            self._take(found)
        self._seen = found

    def _take(self, content: bytes) -> None:
        self._judged = content
        try:
            ring = parse_keys(content, str(self.path))
        except VecstowError as error:
            self._refuse(error.message)
            return
        self.ring, self.loaded_at, self._refused = ring, time.time(), None
        log.info("keys are read again", file=str(self.path), keys=len(ring.keys))

    def _refuse(self, reason: str) -> None:
        if reason != self._refused:
            log.error("keys cannot be read again, those before stay in force", reason=reason)
        self._refused = reason


def _read(path: Path) -> bytes:
    """Return the file's content, at most one byte more than is allowed; raise InvalidInput."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidInput(f"keys file {path} is no file", hint="name the file in the folder")
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidInput(f"keys file {path} cannot be read: {error.strerror or error}") from None


def parse_keys(raw: bytes, file: str) -> KeyRing:
    """Return the keys of a file's content; raise InvalidInput, which names file, entry and field, no key."""
    try:
        return KeyRing(_keys(_document(raw)))
    except InvalidInput as wrong:
        raise InvalidInput(
            f"keys file {file}: {wrong.message}", hint="docs/api.md shows what it looks like"
        ) from None


def _document(raw: bytes) -> yaml.Node | None:
    if len(raw) > FILE_BYTES_MAX:
        raise InvalidInput(f"it has more than {FILE_BYTES_MAX} bytes")
    try:
        # Nodes, not values: they have line numbers, and YAML makes no numbers or dates of their texts.
        return yaml.compose(raw.decode(), yaml.BaseLoader)
    except UnicodeDecodeError as broken:
        raise InvalidInput(f"it is not UTF-8 at byte {broken.start}") from None
    except (yaml.YAMLError, RecursionError) as broken:
        # The parser's message may quote a key, as an alias or a tag.
        mark = getattr(broken, "problem_mark", None)
        place = "" if mark is None else f" at line {mark.line + 1}, column {mark.column + 1}"
        raise InvalidInput(f"it is no valid YAML{place}; keys with special characters need quotes") from None


def _keys(document: yaml.Node | None) -> list[Key]:
    if document is None:
        raise InvalidInput("it is empty; it must have the field keys")
    entries = _items(_required(_fields(document, "it", ("keys",)), "keys"), "keys", KEYS_MAX)
    keys: list[Key] = []
    by_name: dict[str, str] = {}
    by_digest: dict[bytes, str] = {}
    for number, entry in enumerate(entries, start=1):
        where = f"entry {number} (line {entry.start_mark.line + 1})"
        key = _key(entry, where)
        where = f"entry {number} ({key.name})"
        _refuse_twin(by_name, key.name, where, "name")
        _refuse_twin(by_digest, key.digest, where, "key")
        keys.append(key)
    return keys


def _key(entry: yaml.Node, where: str) -> Key:
    fields = _fields(entry, where, FIELDS)
    name = _text(_required(fields, "name", where), f"{where}: name")
    if _NAME.fullmatch(name) is None:
        raise InvalidInput(
            f"{where}: name{_shown(name)} must be 1 to 63 of A-Z a-z 0-9 . _ -, first a letter or digit"
        )
    if len(name) < KEY_CHARACTERS_MIN:
        where = f"{where[:-1]}, {name})"
    role = _role(_text(_required(fields, "role", where), f"{where}: role"), where)
    patterns = _patterns(fields.get("collections"), role, where)
    names = re.compile("|".join(map(fnmatch.translate, patterns))) if patterns else None
    return Key(name, role, _digest(fields, where), patterns, names)


def _role(text: str, where: str) -> Role:
    for role in Role:
        if text == role.value:
            return role
    raise InvalidInput(f"{where}: role{_shown(text)} must be one of {', '.join(Role)}")


def _patterns(node: yaml.Node | None, role: Role, where: str) -> tuple[str, ...]:
    if node is None:
        return ()
    if role not in LIMITABLE:
        raise InvalidInput(f"{where}: collections is only for the roles {', '.join(LIMITABLE)}")
    items = _items(node, f"{where}: collections", PATTERNS_MAX)
    patterns = tuple(_text(item, f"{where}: collections") for item in items)
    for pattern in patterns:
        if _PATTERN.fullmatch(pattern) is None:
            raise InvalidInput(
                f"{where}: collections{_shown(pattern)} must each be 1 to 64 of A-Z a-z 0-9 _ - and * or ?"
            )
    return patterns


def _digest(fields: Fields, where: str) -> bytes:
    if ("key" in fields) == ("sha256" in fields):
        raise InvalidInput(f"{where} must have either key or sha256")
    if "sha256" in fields:
        text = _text(fields["sha256"], f"{where}: sha256").lower()
        if _DIGEST.fullmatch(text) is None:
            raise InvalidInput(f"{where}: sha256 must be 64 hexadecimal digits")
        return bytes.fromhex(text)
    key = _text(fields["key"], f"{where}: key")
    if key.startswith("sha256:"):
        raise InvalidInput(f"{where}: key is a digest; it belongs into the field sha256")
    if _KEY.fullmatch(key) is None:
        raise InvalidInput(
            f"{where}: key must be {KEY_CHARACTERS_MIN} to {KEY_CHARACTERS_MAX} printable ASCII characters "
            "without spaces"
        )
    return hashlib.sha256(key.encode()).digest()


def _refuse_twin(seen: dict[Any, str], value: object, where: str, what: str) -> None:
    if value in seen:
        raise InvalidInput(f"{where} has the same {what} as {seen[value]}")
    seen[value] = where


def _fields(node: yaml.Node, where: str, known: Iterable[str]) -> Fields:
    if not isinstance(node, yaml.MappingNode):
        raise InvalidInput(f"{where} must be a mapping")
    fields: Fields = {}
    for name_node, value in node.value:
        name = _text(name_node, f"{where}: a field's name")
        if name not in known:
            raise InvalidInput(f"{where} has an unknown field{_shown(name)}; known: {', '.join(known)}")
        if name in fields:
            raise InvalidInput(f"{where}: {name} stands twice")
        fields[name] = value
    return fields


def _required(fields: Mapping[str, yaml.Node], name: str, where: str = "it") -> yaml.Node:
    if name not in fields:
        raise InvalidInput(f"{where} has no {name}")
    return fields[name]


def _items(node: yaml.Node, where: str, count_max: int) -> list[yaml.Node]:
    if not isinstance(node, yaml.SequenceNode):
        raise InvalidInput(f"{where} must be a list")
    if not 1 <= len(node.value) <= count_max:
        raise InvalidInput(f"{where} has {len(node.value)} items; 1 to {count_max} are allowed")
    return list(node.value)


def _text(node: yaml.Node, where: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise InvalidInput(f"{where} must be a string")
    return str(node.value)


def _shown(value: str) -> str:
    """Return ` 'value'` when the value is too short to be a key, else nothing."""
    return f" {value!r}" if len(value) < KEY_CHARACTERS_MIN else ""
