"""A network's file without what leads to outputs that no one asks for.

TensorFlow Lite runs every operator of a file, so the pose's network would make its segmentation mask each time, for a
third of its cost. The file is a FlatBuffer (https://flatbuffers.dev/internals; tables as in TensorFlow Lite's
``schema.fbs``): shortening two of its lists in place is enough.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

_SUBGRAPHS = 2  # fields, in the order of the schema: of Model,
_OUTPUTS, _OPERATORS = 2, 3  # of SubGraph,
_OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 1, 2  # of Operator


def pruned(model: bytes, outputs: Sequence[int]) -> bytes:
    """The same network with these of its outputs alone, and the operators they need.

    Parameters
    ----------
    model : bytes
        A whole ``.tflite`` file of one subgraph, trusted: its SHA-256 is known.
    outputs : sequence of int
        Places among the file's outputs, kept in this order.
    """
    data = bytearray(model)
    (graph,) = _tables(data, _vector(data, _word(data, 0), _SUBGRAPHS))
    place = _vector(data, graph, _OUTPUTS)
    there = _numbers(data, place)
    wanted = [there[number] for number in outputs]
    _put(data, place, wanted)
    place = _vector(data, graph, _OPERATORS)
    needed, kept = set(wanted), list[int]()
    for operator in reversed(_tables(data, place)):  # the file's order is the order of execution
        if needed.intersection(_numbers(data, _vector(data, operator, _OPERATOR_OUTPUTS))):
            needed.update(_numbers(data, _vector(data, operator, _OPERATOR_INPUTS)))
            kept.append(operator)
    first = place + 4
    _put(data, place, [table - (first + 4 * number) for number, table in enumerate(reversed(kept))])
    return bytes(data)


def _word(data: bytearray, place: int) -> int:
    (value,) = struct.unpack_from("<I", data, place)
    return int(value)


def _vector(data: bytearray, table: int, field: int) -> int:
    """Where a table's list begins: its length, then its items."""
    (back,) = struct.unpack_from("<i", data, table)
    (offset,) = struct.unpack_from("<H", data, table - back + 4 + 2 * field)
    place: int = table + offset
    return place + _word(data, place)


def _numbers(data: bytearray, vector: int) -> list[int]:
    return list(struct.unpack_from(f"<{_word(data, vector)}i", data, vector + 4))


def _tables(data: bytearray, vector: int) -> list[int]:
    """Where the tables of a list begin; a list holds how far each is from its own item."""
    return [vector + 4 + 4 * place + offset for place, offset in enumerate(_numbers(data, vector))]


def _put(data: bytearray, vector: int, numbers: Sequence[int]) -> None:
    struct.pack_into(f"<I{len(numbers)}i", data, vector, len(numbers), *numbers)
