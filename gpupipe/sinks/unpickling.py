"""Reads pickles of plain values and NumPy arrays, whoever wrote them, and runs nothing from them."""

from __future__ import annotations

import io
import math
import os
import pickle
import re
from collections.abc import Callable
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from gpupipe.errors import InputError

SCALARS = {
    **{f"{sign}{size}": f"{name}{8 * size}" for sign, name in (("i", "int"), ("u", "uint")) for size in (1, 2, 4, 8)},
    "b1": "bool_",
    "f2": "float16",
    "f4": "float32",
    "f8": "float64",
}
"""Scalar types of NumPy that pickles hold: kind and size to name."""

_SPEC = re.compile(r"[<>=|]?[biufcSUmM][0-9]{1,9}(\[[0-9]*[a-zA-Z]+\])?")


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
        NumPy scalars, of the dtypes of :func:`gpupipe.sinks.pickles.array_pieces`.

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


def loads(data: bytes | bytearray | memoryview) -> Any:
    """Read one pickle from memory; see :func:`load`."""
    return load(io.BytesIO(data))


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
    for name in SCALARS.values():
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
