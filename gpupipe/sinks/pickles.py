"""Pickles whose bytes depend on the values alone; read by what runs nothing, :mod:`gpupipe.sinks.unpickling`.

The standard pickler writes other bytes for equal values: its memo goes by object identity, and NumPy's
part names modules that moved in NumPy 2. Here the opcodes are written by hand: protocol 4, no memo, no
frames, and of NumPy only ``numpy.ndarray``, ``numpy.dtype`` and scalar types, whose names are public and
old. Plain ``pickle.load`` reads them on Python 3.8 and later, with NumPy 1.26 and 2.

An array is ``header + raw C-order bytes + trailer``, so that one too large for memory can be streamed:

>>> header, trailer = array_pieces((2, 3), "u1")
>>> import pickle
>>> pickle.loads(header + bytes(6) + trailer).shape
(2, 3)

Opcodes: https://github.com/python/cpython/blob/main/Lib/pickletools.py
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from gpupipe.sinks.unpickling import SCALARS, load, loads

__all__ = ["Growing", "array_pieces", "body", "dumps", "load", "loads", "pieces"]

BATCH = 1000
"""Elements between two marks, as the standard pickler does: bounds the reader's stack."""
_DEPTH = 200  # containers within containers; a reader of any Python follows
_KINDS = "biufcSUmM"


def array_pieces(shape: Sequence[int], dtype: npt.DTypeLike) -> tuple[bytes, bytes]:
    """What goes before and after an array's raw bytes in a pickle of the bare array.

    Parameters
    ----------
    shape : sequence of int
        Any number of dimensions NumPy takes; none for a scalar array.
    dtype : dtype-like
        Bool, integer, float, complex, fixed-length bytes or str, datetime or timedelta; of either byte
        order (NumPy makes it native when it reads). No objects, no structures, no ``longdouble`` (its
        bytes differ between machines).

    Returns
    -------
    header, trailer : bytes
        Between them belong ``prod(shape) * itemsize`` bytes in C order.

    Raises
    ------
    TypeError
        The dtype is not one of these.
    ValueError
        A dimension is negative.
    """
    return b"\x80\x04" + _array_header(tuple(shape), np.dtype(dtype)), b"tb."


def dumps(obj: object) -> bytes:
    """The pickle of plain values: ``b"".join(pieces(obj))``, see :func:`pieces`."""
    return b"".join(pieces(obj))


def pieces(obj: object) -> Iterator[bytes | memoryview]:
    """The pickle of plain values as it is made; the pieces of arrays are not copies.

    Parameters
    ----------
    obj : object
        Exactly dict, list, tuple, str, bytes, int, float, bool, None, ``numpy.ndarray`` of the dtypes of
        :func:`array_pieces`, NumPy bool, integer and float scalars; nested up to 200 deep. Subclasses
        are refused: they would not come back as what they are. An object met twice is written twice.

    Raises
    ------
    TypeError
        Something else is in it.
    ValueError
        It is nested too deep, or contains itself.
    """
    yield b"\x80\x04"
    pending = bytearray()
    for piece in _write(obj, 0):
        # Small opcodes are gathered: a piece a call would cost more than the write.
        if len(piece) < 4096:
            pending += piece
            if len(pending) < 65536:
                continue
            yield bytes(pending)
        else:
            yield bytes(pending)
            yield piece
        pending.clear()
    yield bytes(pending) + b"."


def body(obj: object) -> bytes:
    """The opcodes of a value alone, to be put into a pickle that is made piece by piece; see :func:`pieces`."""
    return dumps(obj)[2:-1]


class Growing:
    """A list or dict written as its elements come; the bytes are those of the whole one.

    Before each element (of a dict: key and value) call :meth:`element`, then write its opcodes (:func:`body`).

    Parameters
    ----------
    write : callable
        Takes the bytes, in order.
    kind : type
        ``list`` or ``dict``.
    """

    def __init__(self, write: Callable[[bytes], object], kind: type[list[Any]] | type[dict[Any, Any]]) -> None:
        self._write, self._end = write, b"e" if kind is list else b"u"
        self.count = 0
        write(b"]" if kind is list else b"}")

    def element(self) -> None:
        """Another element begins."""
        if self.count % BATCH == 0:
            self._write(b"(" if self.count == 0 else self._end + b"(")
        self.count += 1

    def close(self) -> None:
        """There are no more."""
        if self.count:
            self._write(self._end)


def _write(obj: Any, depth: int) -> Iterator[bytes | memoryview]:
    kind = type(obj)
    if kind in _ATOMS:
        yield _ATOMS[kind](obj)
    elif kind is bytes:
        yield _bytes_header(len(obj))
        yield obj
    elif kind is np.ndarray:
        yield _array_header(obj.shape, obj.dtype)
        yield _raw(obj)
        yield b"tb"
    elif kind in (dict, list, tuple):
        if depth == _DEPTH:
            raise ValueError(f"nested more than {_DEPTH} deep, or an object contains itself")
        yield from _WRITERS[kind](obj, depth + 1)
    elif isinstance(obj, np.generic) and obj.dtype.str[1:] in SCALARS:
        yield b"cnumpy\n" + SCALARS[obj.dtype.str[1:]].encode() + b"\n"
        yield _ATOMS[type(obj.item())](obj.item())
        yield b"\x85R"
    else:
        raise TypeError(
            f"cannot write a {kind.__module__}.{kind.__qualname__} into a pickle; plain containers, str, bytes, "
            "numbers, None and NumPy arrays and scalars go"
        )


def _write_dict(obj: dict[Any, Any], depth: int) -> Iterator[bytes | memoryview]:
    yield b"}"
    entries = iter(obj.items())
    for _ in range(0, len(obj), BATCH):
        yield b"("
        for key, value in islice(entries, BATCH):
            yield from _write(key, depth)
            yield from _write(value, depth)
        yield b"u"


def _write_list(obj: list[Any], depth: int) -> Iterator[bytes | memoryview]:
    yield b"]"
    values = iter(obj)
    for _ in range(0, len(obj), BATCH):
        yield b"("
        for value in islice(values, BATCH):
            yield from _write(value, depth)
        yield b"e"


def _write_tuple(obj: tuple[Any, ...], depth: int) -> Iterator[bytes | memoryview]:
    if not obj:
        yield b")"
        return
    yield b"("
    for value in obj:
        yield from _write(value, depth)
    yield b"t"


_WRITERS: dict[type, Callable[[Any, int], Iterator[bytes | memoryview]]] = {
    dict: _write_dict,
    list: _write_list,
    tuple: _write_tuple,
}


def _raw(array: npt.NDArray[Any]) -> bytes | memoryview:
    """The array's bytes in C order, without a copy where they lie so."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8).data if flat.size else b""


def _array_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    if dtype.kind not in _KINDS or dtype.itemsize == 0 or dtype.char in "gG":
        raise TypeError(f"arrays of dtype {dtype!r} are not written into pickles; plain, machine-independent ones are")
    if any(size < 0 for size in shape):
        raise ValueError(f"shape {shape} has a negative dimension")
    # ndarray((0,), 'B'), then __setstate__((1, shape, dtype, is_fortran, raw)): what NumPy's own pickles do,
    # but for its private _reconstruct. The result owns its memory or borrows it from the bytes: writable.
    dimensions = b"".join(_write_int(int(size)) for size in shape)
    return b"".join(
        [
            b"cnumpy\nndarray\nK\x00\x85\x8c\x01B\x86R",
            b"(K\x01",
            b"(" + dimensions + b"t" if shape else b")",
            b"cnumpy\ndtype\n" + _write_str(dtype.str) + b"\x85R",
            b"\x89",
            _bytes_header(math.prod(shape) * dtype.itemsize),
        ]
    )


def _bytes_header(nbytes: int) -> bytes:
    if nbytes < 1 << 8:
        return b"C" + nbytes.to_bytes(1, "little")
    if nbytes < 1 << 32:
        return b"B" + nbytes.to_bytes(4, "little")
    return b"\x8e" + nbytes.to_bytes(8, "little")


def _write_str(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    if len(data) < 1 << 8:
        return b"\x8c" + len(data).to_bytes(1, "little") + data
    if len(data) < 1 << 32:
        return b"X" + len(data).to_bytes(4, "little") + data
    return b"\x8d" + len(data).to_bytes(8, "little") + data


def _write_int(value: int) -> bytes:
    if 0 <= value < 1 << 8:
        return b"K" + value.to_bytes(1, "little")
    if 0 <= value < 1 << 16:
        return b"M" + value.to_bytes(2, "little")
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + value.to_bytes(4, "little", signed=True)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    if len(data) > 1 and data[-1] == 0xFF and data[-2] & 0x80:
        data = data[:-1]  # a negative power of two fits in one byte less
    if len(data) < 1 << 8:
        return b"\x8a" + len(data).to_bytes(1, "little") + data
    return b"\x8b" + len(data).to_bytes(4, "little") + data


_ATOMS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"N",
    bool: lambda value: b"\x88" if value else b"\x89",
    int: _write_int,
    float: lambda value: b"G" + struct.pack(">d", value),
    str: _write_str,
}
