"""Reading YAML for `apply`: every document, where it stands, and nothing silently lost."""

import io
import json
from pathlib import Path

import pytest

from vecstow_engine.cli.documents import FILE_BYTES_MAX, load_resources, read_documents
from vecstow_engine.model.errors import InvalidInput, NotFound, TooLarge


def load(text):
    return [(document.source, document.content) for document in load_resources(text, "c.yaml")]


def test_one_document_is_named_by_its_file():
    assert load("a: 1\n") == [("c.yaml", {"a": 1})]


def test_several_documents_are_numbered_and_empty_ones_left_out():
    assert load("---\na: 1\n---\n# nothing\n---\na: 2\n") == [
        ("c.yaml, document 1", {"a": 1}),
        ("c.yaml, document 2", {"a": 2}),
    ]


def test_a_list_is_opened_into_its_items():
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [{"a": 1}, {"a": 2}]})
    assert load(text) == [("c.yaml, item 1", {"a": 1}), ("c.yaml, item 2", {"a": 2})]


def test_a_list_without_items_is_refused():
    with pytest.raises(InvalidInput, match="a List must have items"):
        load("kind: List\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "a: 1\na: 2\n", "c.yaml is no valid YAML: line 2, column 1: key 'a' stands twice", id="top"
        ),
        pytest.param("s:\n  d: 1\n  d: 2\n", "line 3, column 3: key 'd' stands twice", id="nested"),
        pytest.param('{"a": 1, "a": 1}', "line 1, column 10: key 'a' stands twice", id="json"),
        pytest.param("a: [1\n", "c.yaml is no valid YAML: line 2, column 1: expected", id="syntax"),
        pytest.param("a: !!python/name:os.system x\n", "could not determine a constructor", id="code"),
        pytest.param("a: \x00\n", "special characters are not allowed", id="zero byte"),
        pytest.param("a: 2024-13-45\n", "month must be in 1..12", id="impossible date"),
        pytest.param("[" * 3000 + "]" * 3000, "recursion", id="too deep"),
    ],
)
def test_what_is_no_valid_yaml_is_refused_in_one_line(text, message):
    with pytest.raises(InvalidInput) as refused:
        load(text)
    assert message in refused.value.message
    assert "\n" not in refused.value.message


def test_an_anchor_may_be_overridden_after_a_merge():
    """`<<` brings keys that the mapping's own may replace: that is no duplicate."""
    text = "base: &b {a: 1, b: 2}\nmore:\n  <<: *b\n  a: 3\n"
    assert load(text)[0][1]["more"] == {"a": 3, "b": 2}


def test_a_folder_gives_its_yaml_and_json_files_in_order_and_no_others(tmp_path):
    for name, text in {"b.yml": "n: 2", "a.yaml": "n: 1", "c.json": '{"n": 3}', "d.txt": "n: 4"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "sub.yaml").mkdir()
    assert [document.content["n"] for document in read_documents([tmp_path])] == [1, 2, 3]


def test_a_folder_without_yaml_is_refused(tmp_path):
    with pytest.raises(NotFound, match=r"has no file that ends in \.yaml"):
        list(read_documents([tmp_path]))


def test_a_missing_path_is_refused(tmp_path):
    with pytest.raises(NotFound, match="does not exist"):
        list(read_documents([tmp_path / "none.yaml"]))


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    (tmp_path / "big.yaml").write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(TooLarge, match=str(FILE_BYTES_MAX)):
        list(read_documents([tmp_path]))


def test_a_file_that_is_not_utf8_is_refused_with_the_byte(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(InvalidInput, match="at byte 3"):
        list(read_documents([tmp_path]))


def test_a_dash_reads_stdin(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a: 1\n")))
    assert [document.source for document in read_documents([Path("-")])] == ["stdin"]
