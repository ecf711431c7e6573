"""The rows of one array file of a dataset, read a few at a time."""

from __future__ import annotations

import os
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from gpupipe.errors import InputError, MissingInputError


class ShardRows:
    """One ``.npy`` file, opened for reading.

    Read with ``pread``, not mapped: a file that is cut short is an error then, not SIGBUS, and what was read does not
    stay in the process's memory.

    Parameters
    ----------
    path : Path
    dtype : str
        Expected.
    shape : tuple of int
        Of a row, expected.

    Raises
    ------
    InputError
        The file is missing, or holds something else.
    """

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...]) -> None:
        self._path, self._dtype, self._shape = path, np.dtype(dtype), shape
        try:
            self._file = path.open("rb")
        except FileNotFoundError as error:
            raise MissingInputError(
                f"{path}: missing, though the index names it. gpupipe verify says what else is."
            ) from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
        try:
            self._count, self._start = self._header()
        except BaseException:
            self._file.close()
            raise

    def _header(self) -> tuple[int, int]:
        try:
            if np.lib.format.read_magic(self._file) != (1, 0):
                raise ValueError("another version of the format")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(self._file)
        except (ValueError, TypeError, SyntaxError, RecursionError, TokenError, OSError) as error:
            words = str(error)[:200].replace("\n", " ")
            raise InputError(
                f"{self._path}: is no array file ({words}). gpupipe verify says what else is wrong."
            ) from error
        if dtype != self._dtype or shape[1:] != self._shape or len(shape) == 0 or (fortran and len(shape) > 1):
            raise InputError(
                f"{self._path}: holds {dtype} {list(shape)}, expected {self._dtype} [S, "
                f"{', '.join(map(str, self._shape))}] in C order."
            )
        return shape[0], self._file.tell()

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Rows `start` up to `stop`, in memory of their own."""
        if not 0 <= start <= stop <= self._count:
            raise InputError(f"{self._path}: holds {self._count} rows; the index names row {stop - 1}.")
        rows = np.empty((stop - start, *self._shape), self._dtype)
        view, row_nbytes = rows.reshape(-1).view(np.uint8).data, rows.nbytes // max(1, stop - start)
        offset = self._start + start * row_nbytes
        while view:
            try:
                count = os.preadv(self._file.fileno(), [view], offset)
            except OSError as error:
                raise InputError(f"{self._path}: cannot be read ({error.strerror}).") from error
            if count == 0:
                raise InputError(
                    f"{self._path}: is cut short at byte {offset}. gpupipe verify --repair has it made again."
                )
            view, offset = view[count:], offset + count
        return rows

    def close(self) -> None:
        """Close the file."""
        self._file.close()
