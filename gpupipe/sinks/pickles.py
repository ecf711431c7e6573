"""Pickles whose bytes depend on the values alone, and a reader that runs nothing.

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

import io
import math
import os
import pickle
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from gpupipe.errors import InputError

_BATCH = 1000  # elements between two marks, as the standard pickler does: bounds the reader's stack
_DEPTH = 200  # containers within containers; a reader of any Python follows
_KINDS = "biufcSUmM"
_SPEC = re.compile(r"[<>=|]?[biufcSUmM][0-9]{1,9}(\[[0-9]*[a-zA-Z]+\])?")
_SCALARS = {
    **{f"{sign}{size}": f"{name}{8 * size}" for sign, name in (("i", "int"), ("u", "uint")) for size in (1, 2, 4, 8)},
    "b1": "bool_",
    "f2": "float16",
    "f4": "float32",
    "f8": "float64",
}


# --- writing ---------------------------------------------------------------------------------------------


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
        if self.count % _BATCH == 0:
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
    elif isinstance(obj, np.generic) and obj.dtype.str[1:] in _SCALARS:
        yield b"cnumpy\n" + _SCALARS[obj.dtype.str[1:]].encode() + b"\n"
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
    for _ in range(0, len(obj), _BATCH):
        yield b"("
        for key, value in islice(entries, _BATCH):
            yield from _write(key, depth)
            yield from _write(value, depth)
        yield b"u"


def _write_list(obj: list[Any], depth: int) -> Iterator[bytes | memoryview]:
    yield b"]"
    values = iter(obj)
    for _ in range(0, len(obj), _BATCH):
        yield b"("
        for value in islice(values, _BATCH):
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


# --- reading ---------------------------------------------------------------------------------------------


def loads(data: bytes | bytearray | memoryview) -> Any:
    """Read one pickle from memory; see :func:`load`."""
    return load(io.BytesIO(data))


def load(file: IO[bytes]) -> Any:
    """Read one pickle of plain values and NumPy arrays, whoever wrote it, and run nothing from it.

    What comes back is built here: the names that NumPy's pickles carry (``numpy.core`` and
    ``numpy._core`` alike, protocols 0 to 5) stand for checked functions of this module, and no module is
    imported on a pickle's word.

    Parameters
    ----------
    file : binary file
        Read from where it stands to the end of the pickle.

    Returns
    -------
    object
        dict, list, tuple, set, frozenset, str, bytes, numbers, None; ``numpy.ndarray``, ``numpy.dtype`` and
        NumPy scalars, of the dtypes of :func:`array_pieces`.

    Raises
    ------
    InputError
        The pickle is damaged or cut off, or names anything else: the message says which. Arrays of
        objects, structured and masked arrays, persistent ids and registered extensions are refused.
        So is what does not fit into memory; note that on a Python before the fix of gh-115952 a forged
        memo index can ask for tens of GiB.
    OSError
        The file cannot be read.
    """
    name = getattr(file, "name", None)
    where = f"{os.fsdecode(name)}: " if isinstance(name, (str, bytes, os.PathLike)) else ""
    try:
        return _Resolver().resolve(_Unpickler(file).load())
    except InputError as error:
        raise InputError(f"{where}{error}") from None
    except OSError:
        raise
    except Exception as error:  # a damaged pickle makes the machine fail in any way: IndexError, MemoryError, ...
        raise InputError(
            f"{where}the pickle is damaged or cut off ({type(error).__name__}: {error}). Make the file again."
        ) from error


class _Name:
    """A global of NumPy's pickles: can be called, nothing else."""

    __hash__ = None  # type: ignore[assignment]  # so that it cannot hide in a set or among keys
    __slots__ = ("_call", "_text")

    def __init__(self, text: str, call: Callable[..., Any]) -> None:
        self._text, self._call = text, call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __str__(self) -> str:
        return self._text

    def __setstate__(self, state: object) -> None:
        raise InputError(f"the pickle gives {self._text} a state; only arrays and dtypes have one.")


class _Dtype:
    """A dtype in the making. Not NumPy's: a forged state could mark its bytes as object pointers."""

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("real",)

    def __init__(self, spec: Any, align: Any = False, copy: Any = False) -> None:
        if type(spec) is not str or not _SPEC.fullmatch(spec):
            raise InputError(
                f"the pickle holds values of dtype {spec!r}; plain dtypes are read, objects and fields not."
            )
        self.real: np.dtype[Any] = np.dtype(spec)

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, item size, alignment, flags[, metadata])
        byteorder, subarray, names, fields, itemsize = state[1:6]
        if state[0] not in (3, 4) or byteorder not in ("|", "<", ">", "=") or (subarray, names, fields) != (None,) * 3:
            raise InputError("the pickle holds a dtype with fields or of an unknown version; only plain ones are read.")
        if self.real.kind in "mM":
            unit = state[8][1] if len(state) > 8 else ("generic", 1)  # (unit, count, ...), bytes or str
            text = unit[0].decode("ascii") if isinstance(unit[0], bytes) else unit[0]
            if text != "generic":
                spec = f"{self.real.kind}8[{int(unit[1])}{text}]"
                if not _SPEC.fullmatch(spec):  # else the unit could smuggle in a list of fields
                    raise InputError(f"the pickle holds a dtype of unit {text!r}.")
                self.real = np.dtype(spec)
        elif self.real.kind in "SU" and itemsize >= 0:
            letters = itemsize // (4 if self.real.kind == "U" else 1)
            self.real = np.dtype(f"{self.real.kind}{int(letters)}")
        elif itemsize not in (-1, self.real.itemsize):
            raise InputError(f"the pickle holds a dtype {self.real} of {itemsize} bytes an element.")
        if byteorder != "|":
            self.real = self.real.newbyteorder(byteorder)


class _Array:
    """An array in the making; see :class:`_Resolver`."""

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("real",)

    def __init__(self) -> None:
        self.real: npt.NDArray[Any] = np.empty(0, dtype=np.int8)

    def __setstate__(self, state: Any) -> None:
        _, shape, given, fortran, raw = state
        dtype = _dtype(given)
        _check(shape, dtype, raw)
        state = (1, shape, dtype, bool(fortran), bytes(raw))
        self.real.__setstate__(state)


def _dtype(value: Any) -> np.dtype[Any]:
    if type(value) is not _Dtype:
        raise InputError(f"the pickle gives a {type(value).__name__} for a dtype.")
    return value.real


def _check(shape: Any, dtype: np.dtype[Any], raw: Any) -> None:
    """The shape, the dtype and the bytes belong together; nothing is allocated before that."""
    if type(shape) is not tuple or len(shape) > 32 or not all(type(size) is int and size >= 0 for size in shape):
        raise InputError("the pickle gives an array a shape that is none.")
    if type(raw) is not bytes and type(raw) is not bytearray:
        raise InputError(f"the pickle gives an array a {type(raw).__name__} for its bytes; only raw ones are read.")
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise InputError(f"the pickle gives an array of shape {shape}, {dtype}, {len(raw)} bytes.")


def _make_array(*_: Any) -> _Array:
    # The shape given here is a placeholder that the state replaces: not believed, nothing is allocated.
    return _Array()


def _from_buffer(raw: Any, given: Any, shape: Any, order: Any, axes: Any = None) -> npt.NDArray[Any]:
    """Protocol 5 with its buffers in band."""
    dtype = _dtype(given)
    _check(shape, dtype, raw)
    flat = np.frombuffer(raw if type(raw) is bytearray else bytearray(raw), dtype=dtype)
    if order == "K" and type(axes) is tuple:
        return flat.reshape(shape).transpose(axes)
    if order not in ("C", "F"):
        raise InputError(f"the pickle holds an array in {order!r} order.")
    return flat.reshape(shape, order=order)


def _scalar(given: Any, raw: Any) -> Any:
    dtype = _dtype(given)
    _check((1,), dtype, raw)
    return np.frombuffer(raw, dtype=dtype)[0]


def _encode(text: Any, encoding: Any) -> bytes:
    """``_codecs.encode``: how protocols 0 to 2 carry bytes."""
    if type(text) is not str or encoding != "latin1":
        raise InputError("the pickle calls _codecs.encode for something else than latin1 bytes.")
    return text.encode("latin1")


def _builtin(kind: type, *expected: tuple[type, ...]) -> Callable[..., Any]:
    """A builtin type as protocols 0 to 3 call it: with exactly these types of arguments."""

    def make(*arguments: Any) -> Any:
        if tuple(type(argument) for argument in arguments) not in expected:
            raise InputError(f"the pickle calls {kind.__name__} with arguments that its own pickles do not have.")
        return kind(*arguments)

    return make


def _number(name: str) -> Callable[[Any], Any]:
    kind = getattr(np, name)

    def make(value: Any) -> Any:
        if type(value) not in (bool, int, float):
            raise InputError(f"the pickle makes a numpy.{name} of a {type(value).__name__}.")
        with np.errstate(all="ignore"):
            return kind(value)

    return make


def _names() -> dict[tuple[str, str], _Name]:
    calls: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): _make_array,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _encode,
    }
    for builtins in ("builtins", "__builtin__"):
        calls[builtins, "bytes"] = _builtin(bytes, ())
        calls[builtins, "complex"] = _builtin(complex, (float, float))
        for kind in (set, frozenset):
            calls[builtins, kind.__name__] = _builtin(kind, (list,))
    for core in ("numpy.core", "numpy._core"):
        calls[f"{core}.multiarray", "_reconstruct"] = _make_array
        calls[f"{core}.multiarray", "scalar"] = _scalar
        calls[f"{core}.numeric", "_frombuffer"] = _from_buffer
    for name in _SCALARS.values():
        calls["numpy", name] = _number(name)
    return {key: _Name(".".join(key), call) for key, call in calls.items()}


_NAMES = _names()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _NAMES[module, name]
        except KeyError:
            raise InputError(
                f"the pickle wants {module}.{name}, which is not read: only plain containers, numbers, text and "
                "NumPy arrays are. If you trust the file, convert it with the program that wrote it."
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        raise InputError("the pickle refers to something outside itself (a persistent id), which is not read.")


class _Resolver:
    """Puts the finished arrays in the place of those in the making; lists and dicts are changed in place.

    NumPy's own array cannot be there from the start: the pickle machine would hand a forged state straight to
    its ``__setstate__``.
    """

    def __init__(self) -> None:
        # By identity; the values keep alive what their keys name. None: a tuple not finished yet.
        self._tuples: dict[int, tuple[Any, Any] | None] = {}
        self._seen: set[int] = set()

    def resolve(self, value: Any) -> Any:
        kind = type(value)
        if kind is _Array or kind is _Dtype:
            return value.real
        if kind is list:
            if id(value) not in self._seen:
                self._seen.add(id(value))
                for place, child in enumerate(value):
                    if type(child) in _OPEN:
                        value[place] = self.resolve(child)
        elif kind is dict:
            if id(value) not in self._seen:
                self._seen.add(id(value))
                for key, child in value.items():
                    if type(child) in _OPEN:
                        value[key] = self.resolve(child)
        elif kind is tuple:
            return self._resolve_tuple(value)
        elif kind is _Name:
            raise InputError(f"the pickle holds {value} itself, which is not a value.")
        return value

    def _resolve_tuple(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        known = self._tuples.get(id(value), ())
        if known is None:
            raise InputError("the pickle holds a tuple that contains itself.")
        if known:
            return known[1]  # type: ignore[no-any-return]
        self._tuples[id(value)] = None
        children = [self.resolve(child) if type(child) in _OPEN else child for child in value]
        same = all(new is old for new, old in zip(children, value, strict=True))
        result = value if same else tuple(children)
        self._tuples[id(value)] = (value, result)
        return result


_OPEN = frozenset({_Array, _Dtype, _Name, list, dict, tuple})
