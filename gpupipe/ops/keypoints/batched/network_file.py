"""A network as its ``.tflite`` file describes it: operators in the order of execution, and constants made whole.

Tables as in TensorFlow Lite's ``schema.fbs``. Weights come as float16 and sometimes sparse, with operators that make
them dense float32 each time; here that is done once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpupipe.ops.keypoints.batched.flatbuffer import Table

Array = npt.NDArray[Any]

_TYPES: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f2"), 2: np.dtype("<i4")}  # of TensorType
_KINDS = {
    0: "add",
    2: "concatenate",
    3: "convolve",
    4: "convolve each",
    5: "depth to space",
    6: "dequantize",
    9: "fully connect",
    14: "sigmoid",
    17: "largest",
    19: "relu",
    22: "reshape",
    23: "resize",
    34: "pad",
    40: "mean",
    45: "slice",
    54: "prelu",
    124: "densify",
}
"""Of BuiltinOperator, those that the graph's networks have."""

_DENSE = 0  # of DimensionType; the other is compressed rows
_INDICES = {1: "i", 2: "H", 3: "B"}  # of SparseIndexVector, as struct calls its numbers


@dataclass(frozen=True, slots=True)
class Operator:
    """One step of a network.

    Attributes
    ----------
    kind : str
    inputs : list of int
        Tensors: results of earlier operators, or constants.
    output : int
    options : Table or None
        Of its own type in the schema.
    """

    kind: str
    inputs: list[int]
    output: int
    options: Table | None

    def option(self, field: int, kind: str = "i", default: int = 0) -> int:
        """A number among its options."""
        return default if self.options is None else self.options.number(field, kind, default)


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """A whole network.

    Attributes
    ----------
    shapes : list of tuple of int
        Of every tensor, with a batch of one; images are NHWC.
    constants : dict of int to ndarray
        Tensors that are known; floats are float32.
    operators : list of Operator
    input : int
    outputs : list of int
    """

    shapes: list[tuple[int, ...]]
    constants: dict[int, Array]
    operators: list[Operator]
    input: int
    outputs: list[int]


def read_network(model: bytes) -> NetworkFile:
    """Read a trusted ``.tflite`` file of one subgraph."""
    root = Table.root(model)
    (graph,) = root.tables(2)
    buffers, tensors = root.tables(4), graph.tables(0)
    shapes = [tuple(tensor.numbers(0)) for tensor in tensors]
    constants = {}
    for number, tensor in enumerate(tensors):
        data = buffers[tensor.number(2, "I")].bytes(0)
        if data:
            constants[number] = _constant(tensor, data, shapes[number])
    kinds = [_KINDS[max(code.number(0, "b"), code.number(3))] for code in root.tables(1)]
    operators = []
    for table in graph.tables(3):
        inputs, (output,) = table.numbers(1), table.numbers(2)
        kind = kinds[table.number(0, "I")]
        if kind in {"dequantize", "densify"}:
            constants[output] = constants[inputs[0]]
        else:
            operators.append(Operator(kind, inputs, output, table.table(4)))
    (entry,) = graph.numbers(1)
    return NetworkFile(shapes, constants, operators, entry, graph.numbers(2))


def _constant(tensor: Table, data: bytes, shape: tuple[int, ...]) -> Array:
    values: Array = np.frombuffer(data, _TYPES[tensor.number(1, "b")])
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    sparsity = tensor.table(6)
    return values.reshape(shape) if sparsity is None else _dense(sparsity, values, shape)


def _dense(sparsity: Table, values: Array, shape: tuple[int, ...]) -> Array:
    """Put the values that are there into zeros.

    Dimensions are nested in an order of their own. Some are cut in blocks: these count as further dimensions, inside of
    those they are cut from. Each level says which of its places exist below each place of the level around it.
    """
    places, coordinates, sizes = np.zeros(1, np.int64), list[Array](), list[int]()
    for level in sparsity.tables(2):
        sizes.append(level.number(1))
        if level.number(0, "b") == _DENSE:
            counts = np.full(len(places), sizes[-1])
            inner = np.tile(np.arange(sizes[-1]), len(places))
            places = np.repeat(places * sizes[-1], counts) + inner
        else:
            bounds, indices = _indices(level, 2), _indices(level, 4)
            first, counts = bounds[places], bounds[places + 1] - bounds[places]
            before = np.cumsum(counts) - counts
            places = np.repeat(first - before, counts) + np.arange(counts.sum())
            inner = indices[places]
        coordinates = [*(np.repeat(outer, counts) for outer in coordinates), inner]
    blocks, at = sparsity.numbers(1), [np.zeros(1, np.int64)] * len(shape)
    for place, dimension in sorted(enumerate(sparsity.numbers(0)), key=lambda pair: pair[1]):  # blocks after all others
        if dimension < len(shape):
            at[dimension] = coordinates[place]
        else:
            cut = blocks[dimension - len(shape)]
            at[cut] = at[cut] * sizes[place] + coordinates[place]
    whole: Array = np.zeros(shape, values.dtype)
    whole[tuple(at)] = values[places]
    return whole


def _indices(level: Table, field: int) -> Array:
    """A list of a level: its type, then a table of that type."""
    kind, table = _INDICES[level.number(field, "B")], level.table(field + 1)
    assert table is not None, "compressed rows have their lists"
    return np.array(table.numbers(0, kind), np.int64)
