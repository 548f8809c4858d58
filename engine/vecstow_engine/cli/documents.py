"""The reader of the YAML files of `apply`: every document in them, with its source."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

import yaml

from vecstow_engine.cli.input_files import STDIN, InputFileError, read_text
from vecstow_engine.cli.output import print_note
from vecstow_engine.model.errors import InvalidInput, NotFound
from vecstow_engine.model.fields import type_name

FILE_BYTES_MAX: Final = 4 * 1024 * 1024
SUFFIXES: Final = (".yaml", ".yml", ".json")
NODES_MAX: Final = 200_000


@dataclass(frozen=True, slots=True)
class Document:
    """One decoded document and its source, for example `c.yaml, document 2`."""

    source: str
    content: Any


def read_documents(paths: list[Path]) -> Iterator[Document]:
    """Yield the documents of files, of the YAML and JSON files directly in folders, and of stdin (`-`).

    A folder may also hold other data: a document there that is not a mapping is skipped, and a note names it.
    Raises NotFound for a missing path or a folder without such a file, TooLarge, and InputFileError with line
    and column for invalid YAML.
    """
    for path in paths:
        for file in _files(path):
            text = read_text(file, FILE_BYTES_MAX)
            documents = load_resources(text, "stdin" if file == STDIN else str(file))
            yield from documents if file == path else filter(_may_be_resource, documents)


def load_resources(text: str, source: str) -> Iterator[Document]:
    """Yield each document of `text` except empty ones, and the items of each `kind: List`.

    Raises InvalidInput.
    """
    try:
        documents = [content for content in yaml.load_all(text, _ResourceLoader) if content is not None]
    except RecursionError:
        raise InputFileError(source, "is nested too deeply") from None
    except yaml.YAMLError as broken:
        raise InputFileError(source, f"is no valid YAML: {_one_line(broken, text)}") from broken
    for number, content in enumerate(documents, start=1):
        where = source if len(documents) == 1 else f"{source}, document {number}"
        if not isinstance(content, dict) or content.get("kind") != "List":
            yield Document(where, content)
            continue
        items = content.get("items")
        if not isinstance(items, list):
            raise InvalidInput(f"{where}: a List must have items")
        for place, item in enumerate(items, start=1):
            yield Document(f"{where}, item {place}", item)


class _ResourceLoader(yaml.SafeLoader):
    """A SafeLoader that reads YAML like kubectl: a date is a string, and a repeated key is an error.

    With aliases expanded, a document has at most `NODES_MAX` nodes: a small file could expand to billions.
    """

    def get_node(self) -> Any:
        node = super().get_node()
        if node is not None:
            _check_size(node, {})
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError) as wrong:
            raise _wrong(node, f"{node.tag.rpartition(':')[2]} is expected: {str(wrong)[:200]}") from wrong

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen:
                    raise _wrong(key_node, f"key {key_node.value[:80]!r} stands twice")
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_ResourceLoader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _check_size(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """Return the number of nodes that `node` expands to; raise a YAML error for too many, or for a cycle."""
    if node not in sizes:
        sizes[node] = NODES_MAX  # an alias of this node within itself then exceeds the limit
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = chain.from_iterable(children) if isinstance(node, yaml.MappingNode) else children
        sizes[node] = 1 + sum(_check_size(part, sizes) for part in parts)
        if sizes[node] > NODES_MAX:
            raise _wrong(node, f"its aliases stand for more than {NODES_MAX} nodes")
    return sizes[node]


def _wrong(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _files(path: Path) -> list[Path]:
    if path == STDIN or (path.exists() and not path.is_dir()):
        return [path]
    if not path.is_dir():
        raise NotFound(f"{path} does not exist")
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if not files:
        raise NotFound(f"{path} has no file that ends in {', '.join(SUFFIXES)}")
    return files


def _may_be_resource(document: Document) -> bool:
    """Whether a document of a folder is a mapping; print a note for one that is not."""
    if isinstance(document.content, dict):
        return True
    print_note(f"{document.source} is skipped: it is no resource but a {type_name(document.content)}")
    return False


def _one_line(broken: yaml.YAMLError, text: str) -> str:
    if isinstance(broken, yaml.reader.ReaderError):
        line = text.count("\n", 0, broken.position) + 1
        return f"line {line}: {str(broken).splitlines()[0]}"
    mark = getattr(broken, "problem_mark", None)
    problem = getattr(broken, "problem", None) or str(broken).splitlines()[0]
    return problem if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
