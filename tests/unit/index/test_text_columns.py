"""The text indexes of a collection follow its points: writes, removals, the file, and a build meanwhile."""

import json
from pathlib import Path

import numpy as np
import pytest

from vecstow_engine.index.payload.columns_file import file_parts, load_columns
from vecstow_engine.index.payload.payload_columns import PayloadColumns
from vecstow_engine.index.payload.payload_indexes import PayloadIndexes
from vecstow_engine.model.manifest import PayloadIndex
from vecstow_engine.model.points import make_labels

DECLARED = (PayloadIndex("n", "integer"), PayloadIndex("text", "text"), PayloadIndex("a.b", "text"))


def labels(*slots: int, epoch: int = 1) -> np.ndarray:
    return make_labels(np.array(slots, np.int64), epoch)


def payloads(*texts: object) -> list[bytes | None]:
    return [None if text is None else json.dumps({"text": text}).encode() for text in texts]


def found(columns: PayloadColumns, query: str, field: str = "text") -> list[int]:
    return columns.texts[field].search(query, None)[0].tolist()


def written(columns: PayloadColumns, tmp_path: Path) -> Path:
    path = tmp_path / "payload.bin"
    path.write_bytes(b"".join(map(bytes, file_parts(columns))))
    return path


def loaded_from(path: Path, declared: tuple[PayloadIndex, ...] = DECLARED) -> PayloadColumns:
    return load_columns(path, declared, lambda size: True)


def test_strings_and_strings_of_arrays_are_texts():
    columns = PayloadColumns(DECLARED)
    columns.put(labels(0, 1, 2, 3, 4), payloads("one word", ["one", 2, None, "two"], 3, None, {"one": "one"}))
    assert found(columns, "one") == [0, 1]
    assert found(columns, "two") == [1]


def test_nested_field_is_reached_by_dots_and_a_key_with_dots_wins():
    columns = PayloadColumns(DECLARED)
    columns.put(labels(0, 1), [b'{"a": {"b": "inner"}}', b'{"a": {"b": "inner"}, "a.b": "outer"}'])
    assert found(columns, "inner", "a.b") == [0]
    assert found(columns, "outer", "a.b") == [1]


def test_text_of_a_removed_point_is_gone_and_does_not_weigh():
    columns = PayloadColumns(DECLARED)
    columns.put(labels(0, 1), payloads("one two", "one three four"))
    columns.remove(labels(1))
    assert found(columns, "one") == [0]
    assert columns.texts["text"].count == 1


def test_removal_of_a_former_point_spares_the_new_one_of_its_slot():
    columns = PayloadColumns(DECLARED)
    columns.put(labels(0), payloads("old"))
    columns.put(labels(0, epoch=2), payloads("new"))
    columns.remove(labels(0))
    assert found(columns, "new") == [0]
    assert found(columns, "old") == []


def test_payload_read_before_a_removal_is_not_filled_in_after_it():
    """The thread that completes the columns reads a payload, and the point is deleted meanwhile."""
    columns = PayloadColumns(DECLARED)
    columns.remove(labels(0, 5))
    columns.fill(labels(0, 1, 5), payloads("gone", "here", "gone"))
    assert found(columns, "gone") == []
    assert found(columns, "here") == [1]


def test_file_has_the_texts(tmp_path: Path):
    columns = PayloadColumns(DECLARED)
    columns.put(labels(0, 1), payloads("one two", "one"))
    loaded = loaded_from(written(columns, tmp_path))
    assert found(loaded, "one") == [1, 0]
    assert found(loaded, "two") == [0]
    loaded.put(labels(1, epoch=2), payloads("three"))
    assert found(loaded, "one") == [0]


@pytest.mark.parametrize(
    "declared", [(*DECLARED, PayloadIndex("z", "text")), (PayloadIndex("text", "keyword"),)]
)
def test_file_without_a_declared_field_is_refused(declared: tuple[PayloadIndex, ...], tmp_path: Path):
    path = written(PayloadColumns(DECLARED), tmp_path)
    with pytest.raises(ValueError, match=r"no index of the declared type for (z|text)"):
        loaded_from(path, declared)


@pytest.mark.parametrize("declared", [DECLARED[:1], DECLARED[1:2], DECLARED[::-1]])
def test_file_with_more_fields_is_taken(declared: tuple[PayloadIndex, ...], tmp_path: Path):
    columns = PayloadColumns(DECLARED)
    columns.put(labels(0), payloads("one"))
    loaded = loaded_from(written(columns, tmp_path), declared)
    assert not len(loaded.missing(labels(0)))
    assert {*loaded.columns, *loaded.texts} == {each.field for each in declared}
    if "text" in loaded.texts:
        assert found(loaded, "one") == [0]


def test_texts_of_points_that_are_gone_are_dropped_after_the_file_is_loaded(tmp_path: Path):
    columns = PayloadColumns(DECLARED)
    columns.put(labels(0, 1, 2), payloads("one", "one", "one"))
    loaded = loaded_from(written(columns, tmp_path))
    live = np.concatenate([labels(0), labels(2, epoch=4), labels(70_000)])
    loaded.remove_others(live)
    assert found(loaded, "one") == [0]
    assert loaded.missing(live).tolist() == live[1:].tolist()


def test_collection_with_text_fields_alone_is_indexed():
    indexes = PayloadIndexes(DECLARED[1:2])
    columns = indexes.unfinished
    assert columns is not None
    indexes.finish(columns)
    assert indexes.complete is columns
    indexes.put(labels(0, 1), payloads("one", "one two"))
    indexes.remove(labels(0))
    assert found(columns, "one") == [1]
    indexes.declare(())
    assert indexes.complete is None


def test_memory_of_texts_is_accounted():
    columns = PayloadColumns(DECLARED)
    before = columns.memory_bytes
    columns.put(labels(0), payloads(" ".join(f"word{number}" for number in range(1000))))
    assert columns.memory_bytes > before + 100_000
