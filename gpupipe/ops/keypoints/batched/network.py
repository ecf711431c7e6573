"""One of MediaPipe's networks in torch, for any number of images at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from gpupipe.ops.keypoints.batched.network_file import NetworkFile, Operator, read_network

Function = Callable[..., Any]

_NCHW = (0, 3, 1, 2)
_NHWC = (0, 2, 3, 1)
_ACTIVATIONS: dict[int, Function] = {0: lambda fresh: fresh, 3: lambda fresh: F.relu6(fresh, inplace=True)}


class TorchNetwork:
    """A network, its weights on a device. Used by one thread at a time.

    Images are held as torch holds them in ``channels_last``: what is NCHW by its axes is NHWC in memory, as the file
    has it, so that the input, the outputs and reshaping in between move nothing.

    Parameters
    ----------
    model : bytes
        A ``.tflite`` file, pruned to the wanted outputs (:func:`gpupipe.ops.keypoints.tflite.pruned`).
    device : torch.device
    dtype : torch.dtype
        What it computes in.
    """

    def __init__(self, model: bytes, device: Any, dtype: Any = torch.float32) -> None:
        self._file: NetworkFile = read_network(model)
        self._device, self._dtype = device, dtype
        self._steps = [
            (getattr(self, f"_{operator.kind.replace(' ', '_')}")(operator), self._computed(operator), operator.output)
            for operator in self._file.operators
        ]
        self._done = _last_uses(self._steps, set(self._file.outputs))

    def __call__(self, images: Any) -> list[Any]:
        """Run the network.

        Parameters
        ----------
        images : Tensor, float32 [N, H, W, 3]
            In the range that the network wants.

        Returns
        -------
        list of Tensor, float32
            The wanted outputs, ``[N, ...]`` with axes as in the file.
        """
        held = {self._file.input: images.to(self._dtype).permute(*_NCHW)}
        for (function, inputs, output), done in zip(self._steps, self._done, strict=True):
            held[output] = function(*(held[number] for number in inputs))
            for number in done:
                del held[number]
        found = (held[number] for number in self._file.outputs)
        return [(each.permute(*_NHWC) if each.dim() == 4 else each).to(torch.float32) for each in found]

    def _computed(self, operator: Operator) -> list[int]:
        return [number for number in operator.inputs if number not in self._file.constants]

    def _constant(self, operator: Operator, place: int) -> Any:
        return self._file.constants[operator.inputs[place]]

    def _weights(self, values: Any) -> Any:
        made = torch.from_numpy(np.array(values, np.float32)).to(self._device, self._dtype)
        return made.contiguous(memory_format=torch.channels_last) if made.dim() == 4 else made

    def _sides(self, operator: Operator) -> tuple[int, int]:
        """Height and width of what an operator is given."""
        _, height, width, _ = self._file.shapes[operator.inputs[0]]
        return height, width

    # ---- operators; numbers of options are the fields of the schema's tables

    def _convolve(self, operator: Operator) -> Function:
        weights = self._constant(operator, 1).transpose(0, 3, 1, 2)
        activate = _ACTIVATIONS[operator.option(3, "b")]
        if weights.shape[2:] != (1, 1):
            return self._convolution(operator, weights, 1, activate)
        # A product of matrices, its bias added on the way; a GPU's convolution turns the axes round and adds it after.
        assert (operator.option(1), operator.option(2)) == (1, 1), "no pixel is passed over"
        matrix, bias = self._weights(weights[:, :, 0, 0]), self._weights(self._constant(operator, 2))
        return lambda images: activate(F.linear(images.permute(*_NHWC), matrix, bias).permute(*_NCHW))

    def _convolve_each(self, operator: Operator) -> Function:
        weights = self._constant(operator, 1).transpose(3, 0, 1, 2)
        return self._convolution(operator, weights, len(weights), _ACTIVATIONS[operator.option(4, "b")])

    def _convolution(self, operator: Operator, weights: Any, groups: int, activate: Function) -> Function:
        stride = operator.option(2), operator.option(1)
        pad = _padding(operator, self._sides(operator), weights.shape[2:], stride)
        weights, bias = self._weights(weights), self._weights(self._constant(operator, 2))
        if pad[0] == pad[1] and pad[2] == pad[3]:
            padding = pad[2], pad[0]
            return lambda images: activate(F.conv2d(images, weights, bias, stride, padding, 1, groups))
        return lambda images: activate(F.conv2d(F.pad(images, pad), weights, bias, stride, 0, 1, groups))

    def _largest(self, operator: Operator) -> Function:
        stride, kernel = (operator.option(2), operator.option(1)), (operator.option(4), operator.option(3))
        pad = _padding(operator, self._sides(operator), kernel, stride)
        assert not any(pad), "the networks' pooling takes sides in whole"
        return lambda images: F.max_pool2d(images, kernel, stride)

    def _fully_connect(self, operator: Operator) -> Function:
        weights, bias = self._weights(self._constant(operator, 1)), self._weights(self._constant(operator, 2))
        return lambda values: F.linear(values, weights, bias)

    def _add(self, operator: Operator) -> Function:
        activate = _ACTIVATIONS[operator.option(0, "b")]
        return lambda one, other: activate(one + other)

    def _concatenate(self, operator: Operator) -> Function:
        axis = operator.option(0)
        assert len(self._file.shapes[operator.output]) == 3, "only lists of boxes are joined"
        return lambda *parts: torch.cat(parts, axis)

    def _depth_to_space(self, operator: Operator) -> Function:
        block = operator.option(0)

        def spread(images: Any) -> Any:
            count, depth, height, width = images.shape
            apart = images.permute(*_NHWC).reshape(count, height, width, block, block, depth // block**2)
            whole = apart.transpose(2, 3).reshape(count, height * block, width * block, depth // block**2)
            return whole.permute(*_NCHW)

        return spread

    def _reshape(self, operator: Operator) -> Function:
        before, after = (len(self._file.shapes[number]) for number in (operator.inputs[0], operator.output))
        assert (before, after) in {(4, 3), (4, 2)}, "only images are made flat"
        shape = self._file.shapes[operator.output][1:]
        return lambda images: images.permute(*_NHWC).reshape(len(images), *shape)

    def _resize(self, operator: Operator) -> Function:
        assert not operator.option(2, "B") and operator.option(3, "B"), "resized about the pixels' middles"
        size = tuple(int(side) for side in self._constant(operator, 1))
        return lambda images: F.interpolate(images, size, mode="bilinear", align_corners=False)

    def _pad(self, operator: Operator) -> Function:
        _, rows, columns, channels = ([int(side) for side in pair] for pair in self._constant(operator, 1))
        return lambda images: F.pad(images, (*columns, *rows, *channels))

    def _mean(self, operator: Operator) -> Function:
        assert [int(axis) for axis in self._constant(operator, 1)] == [1, 2], "over all pixels"
        return lambda images: images.mean((2, 3))

    def _slice(self, operator: Operator) -> Function:
        begin, end, step = (self._constant(operator, place).tolist() for place in (1, 2, 3))
        _, rows, columns, channels = (slice(*bounds) for bounds in zip(begin, end, step, strict=True))
        return lambda images: images[:, channels, rows, columns]

    def _prelu(self, operator: Operator) -> Function:
        slopes = self._weights(self._constant(operator, 1).reshape(-1))
        return lambda images: F.prelu(images, slopes)

    def _relu(self, operator: Operator) -> Function:
        relu: Function = F.relu
        return relu

    def _sigmoid(self, operator: Operator) -> Function:
        sigmoid: Function = torch.sigmoid
        return sigmoid


def _padding(
    operator: Operator, sides: tuple[int, int], kernel: tuple[int, ...], stride: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Pixels at the left, right, top and bottom: what is odd goes to the right and to the bottom."""
    if operator.option(0, "b") != 0:  # VALID; the other is SAME
        return 0, 0, 0, 0
    (top, bottom), (left, right) = (
        (lack // 2, lack - lack // 2)
        for lack in (
            max((-(-side // step) - 1) * step + reach - side, 0)
            for side, reach, step in zip(sides, kernel, stride, strict=True)
        )
    )
    return left, right, top, bottom


def _last_uses(steps: list[tuple[Function, list[int], int]], kept: set[int]) -> list[list[int]]:
    """For each step, the tensors that no later one needs."""
    last = {number: place for place, (_, inputs, _) in enumerate(steps) for number in inputs}
    return [
        [number for number in dict.fromkeys(inputs) if last[number] == place and number not in kept]
        for place, (_, inputs, _) in enumerate(steps)
    ]
