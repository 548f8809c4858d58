"""The vectors of .npy files: mapped, not loaded, so that a file may be larger than memory."""

from __future__ import annotations

import math
import struct
import tokenize
from pathlib import Path
from typing import Final

import numpy as np

from vecstow_engine.cli.input_files import GZIP, InputFileError, check_regular
from vecstow_engine.model.errors import WrongShape

_BROKEN: Final = (
    ValueError, EOFError, TypeError, KeyError, ArithmeticError, MemoryError, RecursionError, SyntaxError,
    struct.error, tokenize.TokenError,
)  # fmt: skip
"""The exceptions of NumPy for an invalid header, which NumPy evaluates as a Python literal."""
MAGIC_PREFIX: Final = b"\x93NUMPY"
_ARCHIVE: Final = b"PK\x03\x04"


def open_vectors(npy: Path) -> np.ndarray:
    """Return the array of a .npy file, memory-mapped: (n, d) of float16, float32 or float64.

    Raises InputFileError for a file that cannot be mapped, WrongShape for another array.
    """
    check_regular(npy)
    try:
        with np.errstate(over="raise"):
            array = np.lib.format.open_memmap(npy, mode="r")
    except _BROKEN as broken:
        raise InputFileError(npy, _explained(npy, broken)) from broken
    except OSError as error:
        raise InputFileError(npy, f"cannot be read: {error.strerror or error}") from error
    if array.dtype.kind != "f" or array.dtype.itemsize not in (2, 4, 8):
        raise WrongShape(f"{npy} has dtype {array.dtype}; it must be float16, float32 or float64")
    if array.ndim != 2 or 0 in array.shape:
        raise WrongShape(
            f"{npy} has shape {array.shape}; it must be an array of rows and columns, none of them empty"
        )
    return array


def as_float32(rows: np.ndarray) -> np.ndarray:
    """Return rows as little-endian float32, C order.

    A value beyond float32 becomes infinite; a later check refuses it.
    """
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(rows, dtype="<f4")


def _explained(npy: Path, broken: BaseException) -> str:
    """Return the problem of the file, in the user's terms if the cause is known."""
    with npy.open("rb") as file:
        beginning = file.read(len(MAGIC_PREFIX))
    if not beginning:
        return "is empty"
    if beginning.startswith(_ARCHIVE):
        return "is an archive of arrays (.npz); save one array alone with numpy.save"
    if beginning.startswith(GZIP):
        return f"is compressed with gzip; vectors are read from a plain .npy file: gunzip {npy}"
    if beginning[:1] in (b"{", b"["):
        return "is JSON; vectors come as .npy (numpy.save writes it), and --payload takes JSON lines"
    if beginning != MAGIC_PREFIX:
        return "is no .npy file; vectors come as .npy, as numpy.save writes it"
    if "Python objects" in str(broken):
        return "holds Python objects; it must hold float16, float32 or float64"
    if "mmap length" in str(broken):
        return f"is cut off: it has {npy.stat().st_size:,} bytes, but its header says {_bytes_of(npy):,}"
    return f"is no .npy file that can be mapped: {str(broken)[:200] or type(broken).__name__}"


def _bytes_of(npy: Path) -> int:
    """Return the length in bytes that the header, which is valid, requires."""
    with npy.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read_header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(file)
        return file.tell() + math.prod(shape) * dtype.itemsize
