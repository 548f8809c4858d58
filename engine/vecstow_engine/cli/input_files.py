"""The reader of the input files of commands: open, decompress, decode, and report errors with their line.

Every command reads its files here, so all commands refuse the same files with the same messages. The first
bytes identify gzip data, not the file's name. A byte order mark of UTF-8 is skipped.
"""

from __future__ import annotations

import codecs
import gzip
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from vecstow_engine.model.errors import InvalidInput, TooLarge

STDIN: Final = Path("-")
LINE_BYTES_MAX: Final = 16 * 1024 * 1024
"""More than any payload may have. A file without line ends is refused before it is read whole."""

GZIP: Final = b"\x1f\x8b"
_OTHER_MARKS: Final = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""Byte order marks and their encodings. UTF-32 comes first: its mark begins with that of UTF-16."""


class InputFileError(InvalidInput):
    """Raised when an input file of a command cannot be used; names the file and the line, if known."""

    def __init__(
        self, file: Path | str, problem: str, *, line: int | None = None, hint: str | None = None
    ) -> None:
        # Messages of parsers contain the word, but `vecstow: unexpected …` means a bug of Vecstow.
        problem = problem.replace("unexpected ", "")
        super().__init__(f"{file} {problem}" if line is None else f"{file} line {line} {problem}", hint=hint)


def check_regular(file: Path) -> None:
    """Raise InputFileError unless `file` is a regular file, which can be mapped and read twice."""
    with _reading(file):
        mode = file.stat().st_mode
    if stat.S_ISDIR(mode):
        raise InputFileError(file, "is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        raise InputFileError(
            file,
            "is no regular file, but a pipe or a device",
            hint="it is read more than once: copy it to a file",
        )


def read_text(file: Path, bytes_max: int) -> str:
    """Return the whole text of a small file, or of stdin (`-`). Raises InputFileError and TooLarge."""
    name = "stdin" if file == STDIN else str(file)
    return _decode(read_bytes(file, bytes_max, name), name, line=1)


def read_bytes(file: Path, bytes_max: int, name: str) -> bytes:
    """Return the whole content of a small file, or of stdin (`-`). `name` names the file in errors.

    Raises InputFileError and TooLarge.
    """
    with _reading(name):
        if file == STDIN:
            raw = sys.stdin.buffer.read(bytes_max + 1)
        else:
            with file.open("rb") as stream:
                raw = stream.read(bytes_max + 1)
    if len(raw) > bytes_max:
        raise TooLarge(f"{name} has more than {bytes_max} bytes")
    return raw


def lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line, without the line end. Raises InputFileError."""
    for number, line in enumerate(_raw_lines(file), start=1):
        yield number, _decode(line, file, line=number).rstrip("\r\n")


def count_lines(file: Path) -> int:
    """Return the number of lines of the file. Raises InputFileError."""
    return sum(1 for _ in _raw_lines(file))


def _decode(raw: bytes, file: Path | str, *, line: int) -> str:
    """Return `raw`, which begins at `line` of the file, as text. Raises InputFileError for invalid UTF-8."""
    if line == 1:
        _refuse_other_marks(raw, file)
        raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        return raw.decode()
    except UnicodeDecodeError as broken:
        raise InputFileError(
            file,
            f"is not UTF-8: 0x{raw[broken.start]:02x} at byte {broken.start}",
            line=line + raw.count(b"\n", 0, broken.start),
            hint=f"if it is Latin-1: iconv -f LATIN1 -t UTF-8 {file}",
        ) from None


def _refuse_other_marks(beginning: bytes, file: Path | str) -> None:
    for mark, encoding in _OTHER_MARKS.items():
        if beginning.startswith(mark):
            raise InputFileError(
                file, f"is {encoding}; it must be UTF-8", hint=f"iconv -f {encoding} -t UTF-8 {file}"
            )


def _raw_lines(file: Path) -> Iterator[bytes]:
    check_regular(file)
    number = 0
    try:
        with file.open("rb") as raw:
            stream: BinaryIO | gzip.GzipFile = raw
            if raw.peek(len(GZIP)).startswith(GZIP):
                stream = gzip.GzipFile(fileobj=raw)
            while line := stream.readline(LINE_BYTES_MAX + 1):
                number += 1
                if number == 1:
                    _refuse_other_marks(line, file)
                if len(line) > LINE_BYTES_MAX:
                    raise InputFileError(file, f"has more than {LINE_BYTES_MAX} bytes", line=number)
                yield line
    except EOFError:
        raise InputFileError(file, "is cut off: its gzip data has no end", line=number + 1) from None
    except (gzip.BadGzipFile, zlib.error) as broken:
        raise InputFileError(file, f"has damaged gzip data: {broken}", line=number + 1) from None
    except OSError as error:
        raise InputFileError(file, f"cannot be read: {error.strerror or error}", line=number + 1) from error


@contextmanager
def _reading(file: Path | str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputFileError(file, f"cannot be read: {error.strerror or error}") from error
