"""`import` reads vectors, ids and payloads that belong together, or names the file and line of an error."""

import gzip
import json
import os

import msgspec
import numpy as np
import pytest

from vecstow_engine.cli.input_files import InputFileError
from vecstow_engine.cli.rows import BATCH_BYTES_MAX, batch_rows, batches, open_source, open_vectors
from vecstow_engine.model.errors import InvalidInput, WrongShape


@pytest.fixture
def npy(tmp_path):
    path = tmp_path / "vectors.npy"
    np.save(path, np.arange(20, dtype=np.float16).reshape(5, 4))
    return path


def write_lines(path, lines):
    raw = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def payload_lines(count=5):
    return [json.dumps({"id": f"p{n}", "size": n}) for n in range(count)]


def read(npy, payload=None, ids=None, id_field="id", rows=2):
    return list(batches(open_source(npy, payload, ids, id_field), rows))


def test_rows_without_ids_have_their_number_as_id(npy):
    """A second import of the same file then replaces each row by itself."""
    found = read(npy)
    assert [batch.ids for batch in found] == [["0", "1"], ["2", "3"], ["4"]]
    assert [batch.start for batch in found] == [0, 2, 4]
    assert all(batch.payloads is None for batch in found)


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz"])
def test_payload_lines_bring_ids_and_keep_the_rest_as_payload(npy, tmp_path, name):
    found = read(npy, write_lines(tmp_path / name, payload_lines()))
    assert [batch.ids for batch in found] == [["p0", "p1"], ["p2", "p3"], ["p4"]]
    assert found[1].payloads == [{"size": 2}, {"size": 3}]


def test_an_ids_file_leaves_the_payload_whole(npy, tmp_path):
    ids = write_lines(tmp_path / "ids.txt", ["a", "b/c", "é", "d ", "e"])
    found = read(npy, write_lines(tmp_path / "p.jsonl", payload_lines()), ids)
    assert [point_id for batch in found for point_id in batch.ids] == ["a", "b/c", "é", "d ", "e"]
    assert found[0].payloads == [{"id": "p0", "size": 0}, {"id": "p1", "size": 1}]


def test_numbered_rows_leave_the_payload_whole(npy, tmp_path):
    found = read(npy, write_lines(tmp_path / "p.jsonl", payload_lines()), id_field=None)
    assert found[0].ids == ["0", "1"]
    assert found[0].payloads == [{"id": "p0", "size": 0}, {"id": "p1", "size": 1}]


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_float_type_and_order_is_sent_as_float32_in_c_order(tmp_path, dtype, order):
    rows = np.array([[0.5, -1.25, 3.0], [4.0, 5.5, -6.0]])
    np.save(tmp_path / "v.npy", np.asarray(rows, dtype=dtype, order=order))
    [batch] = read(tmp_path / "v.npy")
    sent = msgspec.msgpack.decode(batch.body())
    assert sent["vectors"] == rows.astype("<f4").tobytes()
    assert sent["ids"] == ["0", "1"]
    assert sent["metadata"] is None


def test_a_value_beyond_float32_becomes_infinite_without_a_warning(tmp_path):
    np.save(tmp_path / "v.npy", np.array([[1e300, 0.0]]))
    [batch] = read(tmp_path / "v.npy")
    assert np.isinf(batch.vectors[0, 0])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        pytest.param(np.zeros(4, np.float32), "rows and columns", id="one dimension"),
        pytest.param(np.zeros((0, 4), np.float32), "none of them empty", id="no rows"),
        pytest.param(np.zeros((2, 0), np.float32), "none of them empty", id="no columns"),
        pytest.param(np.zeros((2, 4), np.int8), "dtype int8", id="integers"),
        pytest.param(np.zeros((2, 4), np.complex64), "dtype complex64", id="complex"),
        pytest.param(np.zeros((2, 4), np.longdouble), "must be float16", id="long double"),
    ],
)
def test_an_array_of_another_form_is_refused(tmp_path, array, message):
    np.save(tmp_path / "v.npy", array)
    with pytest.raises(WrongShape, match=message):
        open_vectors(tmp_path / "v.npy")


def header(text, version=b"\x01\x00"):
    raw = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY" + version + len(raw).to_bytes(2, "little") + raw


def npy_header(**changes):
    fields = {"descr": "<f4", "fortran_order": False, "shape": (2, 4)} | changes
    return header(repr(fields))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "v.npy is empty", id="empty"),
        pytest.param(b"PK\x03\x04", "is an archive of arrays (.npz)", id="archive"),
        pytest.param(b"hello", "is no .npy file; vectors come as .npy", id="text"),
        pytest.param(b'{"id": "a"}\n', "is JSON; vectors come as .npy", id="JSON lines"),
        pytest.param(gzip.compress(b"\x93NUMPY"), "is compressed with gzip; vectors are", id="gzip"),
        pytest.param(b"\x93NUMPY\x01\x00", "is no .npy file", id="cut header"),
        pytest.param(npy_header(), "is cut off: it has 129 bytes, but its header says 161", id="no rows"),
        pytest.param(npy_header() + b"\0" * 31, "is cut off: it has 160 bytes, but its", id="cut row"),
        pytest.param(npy_header(shape=(2**40, 2**40)), "is no .npy file", id="shape beyond any file"),
        pytest.param(npy_header(shape=(-2, 4)), "v.npy ", id="negative shape"),
        pytest.param(npy_header(descr="nonsense"), "is no .npy file", id="unknown type"),
        pytest.param(npy_header(descr="|O") + b"\0" * 64, "holds Python objects", id="pickle"),
        pytest.param(header("{[1]: 2}"), "is no .npy file", id="header that is no mapping"),
        pytest.param(header("(" * 60), "is no .npy file", id="header that is no Python"),
        pytest.param(header("{'descr': '<f4'}", b"\x09\x00"), "is no .npy file", id="later version"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_npy_is_refused_by_its_name(tmp_path, content, message):
    (tmp_path / "v.npy").write_bytes(content)
    with pytest.raises(InvalidInput) as refused:
        open_vectors(tmp_path / "v.npy")
    assert str(refused.value).startswith(f"{tmp_path / 'v.npy'} ")
    assert message in str(refused.value)


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "v.npy")
    with pytest.raises(InputFileError, match=r"v.npy is no regular file"):
        open_vectors(tmp_path / "v.npy")


@pytest.mark.parametrize("count", [4, 6])
def test_another_number_of_lines_than_rows_is_refused_before_anything_is_sent(npy, tmp_path, count):
    payload = write_lines(tmp_path / "p.jsonl", payload_lines(count))
    with pytest.raises(InvalidInput, match=rf"has {count} lines, but .* has 5 rows"):
        open_source(npy, payload, None, "id")


def test_an_empty_line_among_too_many_is_named(npy, tmp_path):
    payload = write_lines(tmp_path / "p.jsonl", [*payload_lines(), ""])
    with pytest.raises(InvalidInput, match=r"has 6 lines, but .* has 5 rows") as refused:
        open_source(npy, payload, None, "id")
    assert refused.value.hint == "line 6 is empty"


def test_another_encoding_is_named_before_lines_are_counted(npy, tmp_path):
    payload = tmp_path / "p.jsonl"
    payload.write_bytes("".join(line + "\n" for line in payload_lines()).encode("utf-16"))
    with pytest.raises(InputFileError, match=r"p.jsonl is UTF-16; it must be UTF-8"):
        open_source(npy, payload, None, "id")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("{", "p.jsonl line 2 is no valid JSON", id="broken"),
        pytest.param("{bad", "line 2 is no valid JSON: object keys must be strings", id="said once"),
        pytest.param("[1]", "p.jsonl line 2 must be a JSON object", id="a list"),
        pytest.param("", "p.jsonl line 2 is empty", id="empty line"),
        pytest.param(" ", "p.jsonl line 2 is empty", id="blank line"),
        pytest.param('{"id": "x"}\0', "p.jsonl line 2 is no valid JSON", id="zero byte"),
        pytest.param('{"id": "x", "n": NaN}', "p.jsonl line 2 is no valid JSON", id="not a number"),
        pytest.param(
            '{"id": "x", "n": 1e999}', "p.jsonl line 2: payload.n is 1e999, which is out", id="infinite"
        ),
        pytest.param('{"id": "x", "n": ' + "9" * 5000 + "}", r"line 2: payload\.n is 9999", id="endless"),
        pytest.param(
            '{"id": "x", "n": ' + "9" * 30 + "}", r"p.jsonl line 2: payload\.n is", id="beyond 64 bits"
        ),
        pytest.param('{"id": "\\ud800"}', "p.jsonl line 2 is no valid JSON", id="half a character"),
        pytest.param(
            '{"id": "x", "t": ' + "[" * 30_000 + "]" * 30_000 + "}",
            "p.jsonl line 2 nests too deep; at most 128",
            id="deep",
        ),
        pytest.param('{"size": 1}', "p.jsonl line 2 has no 'id'", id="no id"),
        pytest.param('{"id": "x", "n": 1, "n": 2}', "p.jsonl line 2 .*'n'", id="repeated key"),
        pytest.param('{"id": 7}', "p.jsonl line 2: id is int; ids are strings", id="id a number"),
        pytest.param('{"id": "a/../b"}', "path segment", id="id that no URL carries"),
    ],
)
def test_a_bad_payload_line_is_named(npy, tmp_path, line, message):
    lines = payload_lines()
    lines[1] = line
    with pytest.raises((InvalidInput, WrongShape), match=message):
        read(npy, write_lines(tmp_path / "p.jsonl", lines))


def test_a_batch_is_as_large_as_wanted_unless_that_were_too_many_bytes():
    assert batch_rows(384, 1000) == 1000
    assert batch_rows(65_536, 1000) == BATCH_BYTES_MAX // (4 * 65_536) == 64
