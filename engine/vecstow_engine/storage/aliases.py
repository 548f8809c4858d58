"""The file of aliases: read, decided and replaced under the lock of the manifests.

Format: docs/storage-format.md, "aliases.json". A person who edits the file by hand breaks its checksum; the
command `vecstow aliases` and the routes below `/aliases` change it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from crc32c import crc32c

from vecstow_engine.model.aliases import ALIASES_MAX, Alias, AliasTable
from vecstow_engine.model.errors import Conflict, DamagedFile, InvalidInput, NewerFormat, as_storage_error
from vecstow_engine.storage import files
from vecstow_engine.storage.layout import Layout, rfc3339

SCHEMA_VERSION: Final = 1
ALIASES_BYTES_MAX: Final = 8 * 1024 * 1024
LEGIBLE_MAX: Final = 50

Signature: TypeAlias = tuple[int, int, int]
"""Inode, size and ctime (ns) of the file."""

_KNOWN: Final = frozenset({"schema_version", "checksum", "aliases"})
_KNOWN_OF_ALIAS: Final = frozenset({"collection", "resource_uid", "updated_at"})


def read_aliases(layout: Layout) -> AliasTable:
    """Return the aliases of a volume, none without the file; raise DamagedFile or NewerFormat."""
    path = layout.aliases
    try:
        with path.open("rb") as stream:
            raw = stream.read(ALIASES_BYTES_MAX + 1)
    except FileNotFoundError:
        return AliasTable()
    except OSError as error:
        raise _damaged(path, f"cannot be read: {error}") from error
    return parse_aliases(raw, path)


class Change(NamedTuple):
    """The aliases before and after a change, and the signature of the file that has them."""

    before: AliasTable
    after: AliasTable
    signature: Signature | None


def change_aliases(layout: Layout, decide: Callable[[AliasTable], AliasTable]) -> Change:
    """Read, decide and write under the lock of the manifests.

    An error of `decide` is raised unchanged, and nothing is written. A changed alias gets the time of its
    change. Raises DamagedFile, NewerFormat, DiskFull, StorageError or files.SyncFailed.
    """
    with files.locked(layout.manifests_lock):
        before = read_aliases(layout)
        after = decide(before)
        if after == before:
            return Change(before, before, signature_of(layout))
        now = rfc3339()
        stamped = {
            name: alias if before.get(name) == alias else dataclasses.replace(alias, updated_at=now)
            for name, alias in after.by_name.items()
        }
        after = dataclasses.replace(after, by_name=stamped)
        try:
            files.replace_file(layout.aliases, [render_aliases(after)])
        except files.SyncFailed:
            raise
        except OSError as error:
            raise as_storage_error(error, "changing the aliases") from error
        return Change(before, after, signature_of(layout))


def signature_of(layout: Layout) -> Signature | None:
    """Return what tells one content of the file from the next; None without the file."""
    try:
        stat = os.stat(layout.aliases)
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_ctime_ns


def sync_aliases(layout: Layout) -> None:
    """Make the file and its name durable, whichever program wrote it; raise files.SyncFailed or OSError.

    A program that was killed between its rename and its sync leaves a name that a power loss takes back.
    """
    files.sync_file(layout.aliases)
    files.sync_folder(layout.data)


def aliases_of(layout: Layout, collection: str) -> tuple[str, ...]:
    """Return the aliases that lead to a collection; none while their file cannot be read."""
    with suppress(DamagedFile, NewerFormat):
        return read_aliases(layout).names_of(collection)
    return ()


def refuse_alias_name(layout: Layout, name: str, operation: str) -> None:
    """Raise Conflict when a new collection would have the name of an alias. The caller holds the lock.

    While the file cannot be read, every name passes: a collection takes precedence over an alias.
    """
    with suppress(DamagedFile, NewerFormat):
        if read_aliases(layout).get(name) is not None:
            # The message leaves the collection out: the caller's API key may not be for that one.
            raise Conflict(
                f"{name!r} is an alias: no collection can have the name",
                collection=name,
                operation=operation,
                hint=f"choose another name, or remove the alias: vecstow aliases rm {name}",
            )


def legible_aliases(layout: Layout) -> list[tuple[str, str]]:
    """Return names and collections in a damaged file, at most LEGIBLE_MAX: what a person may set again."""
    try:
        aliases = json.loads(layout.aliases.read_bytes()[:ALIASES_BYTES_MAX])["aliases"]
        return [(name, aliases[name]["collection"]) for name in islice(aliases, LEGIBLE_MAX)]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return []


def parse_aliases(raw: bytes, path: Path) -> AliasTable:
    """Return the aliases in `raw`, the content of the file `path`; raise DamagedFile or NewerFormat."""
    document = _decode(raw, path)
    version = document.get("schema_version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise _damaged(path, f"schema_version {version!r} is no version")
    if version > SCHEMA_VERSION:
        raise NewerFormat(
            f"{path} has schema_version {version}; this release reads up to {SCHEMA_VERSION}",
            hint="run the release that wrote it, or a later one",
        )
    if document.get("checksum") != _checksum(document):
        raise _damaged(path, "its content differs from its checksum")
    aliases = document.get("aliases")
    if not isinstance(aliases, dict) or len(aliases) > ALIASES_MAX:
        raise _damaged(path, f"aliases is no object of at most {ALIASES_MAX} names")
    try:
        by_name = {name: _alias(name, fields) for name, fields in aliases.items()}
    except (InvalidInput, TypeError, KeyError) as broken:
        raise _damaged(path, "it holds what is no alias") from broken
    return AliasTable(by_name, {key: value for key, value in document.items() if key not in _KNOWN})


def render_aliases(table: AliasTable) -> bytes:
    """Return the bytes of `aliases.json`: an alias a line, sorted, then keys that are not known."""
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "aliases": {alias.name: _fields(alias) for alias in table},
        **table.unknown,
    }
    head = {"schema_version": SCHEMA_VERSION, "checksum": _checksum(document)}
    lines = [f'    "{name}": {_compact(fields)}' for name, fields in document["aliases"].items()]
    aliases = "{\n" + ",\n".join(lines) + "\n  }" if lines else "{}"
    parts = [f'  "{key}": {_compact(value)}' for key, value in head.items()]
    parts.append(f'  "aliases": {aliases}')
    parts += [f"  {_compact(key)}: {_compact(value)}" for key, value in table.unknown.items()]
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def _decode(raw: bytes, path: Path) -> dict[str, Any]:
    if len(raw) > ALIASES_BYTES_MAX:
        raise _damaged(path, f"it has more than {ALIASES_BYTES_MAX} bytes")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as broken:
        raise _damaged(path, f"not valid JSON: {broken}") from broken
    if not isinstance(document, dict):
        raise _damaged(path, "not a JSON object")
    return document


def _checksum(document: dict[str, Any]) -> str:
    covered = {key: value for key, value in document.items() if key != "checksum"}
    text = json.dumps(covered, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"{crc32c(text.encode('utf-8', 'surrogatepass')):08x}"


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=True)


def _alias(name: str, fields: Any) -> Alias:
    if not isinstance(fields, dict):
        raise TypeError(f"{name!r} is no object")
    unknown = {key: value for key, value in fields.items() if key not in _KNOWN_OF_ALIAS}
    return Alias(name, fields["collection"], fields.get("resource_uid"), fields.get("updated_at"), unknown)


def _fields(alias: Alias) -> dict[str, Any]:
    known = {
        "collection": alias.collection,
        "resource_uid": alias.resource_uid,
        "updated_at": alias.updated_at,
    }
    return known | alias.unknown


def _damaged(path: Path, reason: str) -> DamagedFile:
    file, folder = (shlex.quote(str(each)) for each in (path, Layout(path.parent).quarantine))
    aside = f"mkdir -p {folder} && mv {file} {folder}/"
    hint = f"put it back from a copy; or move it away, and set the aliases again: {aside}"
    return DamagedFile(reason, file=str(path), hint=hint)
