"""Reading YAML for `apply`: every document, where it stands, and nothing silently lost."""

import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vecstow_engine.cli.documents import FILE_BYTES_MAX, load_resources, read_documents
from vecstow_engine.cli.input_files import InputFileError
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
        pytest.param(
            "b: 1\na: \x00\n", "line 2: unacceptable character #x0000: special characters", id="zero byte"
        ),
        pytest.param(
            "a: 'b\n", "c.yaml is no valid YAML: line 2, column 1: found end of stream", id="open quote"
        ),
        pytest.param("a: 1\n\tb: 2\n", "line 2, column 1: found character '\\t'", id="tab"),
        pytest.param("a: !!int x\n", "line 1, column 4: int is expected", id="no number"),
        pytest.param("a: !!int ''\n", "line 1, column 4: int is expected", id="nothing as a number"),
        pytest.param("a: !!bool maybe\n", "line 1, column 4: bool is expected", id="no boolean"),
        pytest.param("a: !!timestamp x\n", "line 1, column 4: timestamp is expected", id="no time"),
        pytest.param(f"a: 1{'0' * 5000}\n", "line 1, column 4: int is expected", id="number too long"),
        pytest.param("? [a]\n: b\n", "line 1, column 3: found unhashable key", id="key that is a list"),
        pytest.param("[" * 3000 + "]" * 3000, "c.yaml is nested too deeply", id="too deep"),
    ],
)
def test_what_is_no_valid_yaml_is_refused_in_one_line(text, message):
    with pytest.raises(InvalidInput) as refused:
        load(text)
    assert message in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)),
            id="a billion laughs",
        ),
        pytest.param("a: &a\n  b: *a\n", id="a mapping that contains itself"),
        pytest.param("a: &a [*a, 1]\n", id="a list that contains itself"),
    ],
)
def test_aliases_that_stand_for_too_much_are_refused_with_their_line(text):
    with pytest.raises(InputFileError, match=r"^c.yaml is no valid YAML: line \d, .* its aliases stand for"):
        load(text)


def test_a_date_stays_a_string_as_kubectl_reads_it():
    assert load("owner: 2024-12-31\nother: 2024-13-45\n")[0][1] == {
        "owner": "2024-12-31",
        "other": "2024-13-45",
    }


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
    with pytest.raises(InputFileError, match=r"latin.yaml line 1 is not UTF-8: 0xe9 at byte 3"):
        list(read_documents([tmp_path]))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_another_unicode_encoding_is_named_with_what_converts_it(tmp_path, encoding):
    path = tmp_path / "c.yaml"
    path.write_bytes("a: 1\n".encode(encoding))
    with pytest.raises(InputFileError, match=rf"c.yaml is {encoding.upper()}; it must be UTF-8") as refused:
        list(read_documents([path]))
    assert refused.value.hint == f"iconv -f {encoding.upper()} -t UTF-8 {path}"


def test_a_byte_order_mark_of_utf8_is_skipped(tmp_path):
    (tmp_path / "c.yaml").write_bytes("\ufeffa: 1\n".encode())
    assert [document.content for document in read_documents([tmp_path])] == [{"a": 1}]


def test_a_pipe_is_read_as_kubectl_does(tmp_path):
    """`vecstow apply -f <(command)` gives one."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(path.write_text, "a: 1\n")
        assert [document.content for document in read_documents([path])] == [{"a": 1}]


def test_a_dash_reads_stdin(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a: 1\n")))
    assert [document.source for document in read_documents([Path("-")])] == ["stdin"]
