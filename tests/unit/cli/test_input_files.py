"""Files that a command is given: what is wrong with one is said with its name and line."""

import gzip
import os

import pytest

from vecstow_engine.cli.input_files import LINE_BYTES_MAX, InputFileError, check_regular, count_lines, lines

TEXT = b'{"id": "a"}\n{"id": "b"}\n{"id": "c"}\n'
COMPRESSED = gzip.compress(TEXT * 1000)


def read(path, content):
    path.write_bytes(content)
    return [text for _, text in lines(path)]


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz", "p"])
@pytest.mark.parametrize("content", [TEXT, gzip.compress(TEXT)], ids=["plain", "gzip"])
def test_gzip_is_recognised_by_its_content_whatever_the_name(tmp_path, name, content):
    assert read(tmp_path / name, content) == TEXT.decode().splitlines()


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        pytest.param(b"a\r\nb\r\n", ["a", "b"], id="line ends of Windows"),
        pytest.param(b"\xef\xbb\xbfa\nb", ["a", "b"], id="a byte order mark, and no last line end"),
        pytest.param("é\u2028x\n".encode(), ["é\u2028x"], id="a separator that ends no line"),
        pytest.param(b"", [], id="nothing"),
    ],
)
def test_lines_are_given_without_what_editors_add(tmp_path, content, texts):
    assert read(tmp_path / "f", content) == texts
    assert count_lines(tmp_path / "f") == len(texts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(COMPRESSED[:-9], r"line 3001 is cut off: its gzip data has no end", id="cut gzip"),
        pytest.param(COMPRESSED[:5], r"line 1 is cut off", id="cut gzip header"),
        pytest.param(COMPRESSED[:-5] + b"\0" * 5, r"has damaged gzip data: CRC", id="wrong sum"),
        pytest.param(COMPRESSED[:30] + b"\xff" * 9 + COMPRESSED[39:], "damaged gzip data", id="wrong bits"),
        pytest.param(b"\x1f\x8b\x09rest of it", "line 1 has damaged gzip data", id="false gzip"),
        pytest.param(COMPRESSED + b"more", "has damaged gzip data: Not a gzipped file", id="more after it"),
        pytest.param(b"a\nb\ncaf\xe9\n", r"line 3 is not UTF-8: 0xe9 at byte 3", id="Latin-1"),
        pytest.param("a\n".encode("utf-16"), "is UTF-16; it must be UTF-8", id="UTF-16"),
        pytest.param("a\n".encode("utf-32"), "is UTF-32; it must be UTF-8", id="UTF-32"),
        pytest.param(b"a\n" + b"x" * (LINE_BYTES_MAX + 1), "line 2 has more than", id="no line end"),
    ],
)
def test_wrong_content_is_named_with_its_line(tmp_path, content, message):
    with pytest.raises(InputFileError, match=message) as refused:
        read(tmp_path / "f", content)
    assert str(refused.value).startswith(f"{tmp_path / 'f'} ")


def test_what_cannot_be_read_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in {
        "none": "cannot be read: No such file or directory",
        "": "is a folder; name a file in it",
        "pipe": "is no regular file, but a pipe or a device",
        "x" * 300: "cannot be read: File name too long",
    }.items():
        with pytest.raises(InputFileError, match=message):
            check_regular(tmp_path / name)
        with pytest.raises(InputFileError, match=message):
            list(lines(tmp_path / name))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    path = tmp_path / "f"
    path.touch(mode=0)
    with pytest.raises(InputFileError, match="f cannot be read: Permission denied"):
        list(lines(path))
