"""The networks on the CPU, by LiteRT: MediaPipe itself runs them with it, so the numbers are the same, or nearly.

Chosen by measurement (one thread, ms; AMD EPYC with AVX-512):

===================  ======  ======  ========
network              pruned  LiteRT  OpenVINO
===================  ======  ======  ========
pose_detection        10.49   10.52     10.05
pose_landmark          9.26   14.66      9.01
hand_recrop            1.02    1.04      1.17
hand_landmark          8.00    8.06      7.82
face_detection         1.18    1.20      1.54
face_landmark          1.37    1.37      1.75
===================  ======  ======  ========

OpenVINO is no faster once the files are pruned (see :mod:`gpupipe.ops.keypoints.tflite`), takes three times the space,
and its last bits turn into errors of 0.05 pixels in the hands, where LiteRT's are 0.001.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from gpupipe.errors import UsageError
from gpupipe.ops.keypoints.graph import NETWORKS
from gpupipe.ops.keypoints.points import Floats
from gpupipe.ops.keypoints.tflite import pruned


class Networks:
    """All networks of the graph, one thread. Used by one thread at a time.

    Parameters
    ----------
    models : mapping of str to bytes
        See :func:`gpupipe.ops.keypoints.models.read_models`.

    Raises
    ------
    UsageError
        LiteRT is not installed.
    """

    def __init__(self, models: Mapping[str, bytes]) -> None:
        make = _interpreter()
        self._interpreters: dict[str, Any] = {}
        self._inputs: dict[str, Any] = {}
        self._outputs: dict[str, list[int]] = {}
        for name, network in NETWORKS.items():
            with _without_notes():
                interpreter = make(model_content=pruned(models[name], network.outputs), num_threads=1)
                interpreter.allocate_tensors()
            self._interpreters[name] = interpreter
            self._inputs[name] = interpreter.tensor(interpreter.get_input_details()[0]["index"])
            self._outputs[name] = [output["index"] for output in interpreter.get_output_details()]

    def input(self, name: str) -> Floats:
        """A network's input, float32 [size, size, 3], to be written and let go of before :meth:`run`."""
        view: Floats = self._inputs[name]()[0]
        return view

    def run(self, name: str) -> list[Floats]:
        """Run a network on its input; its wanted outputs, without their batch axis."""
        interpreter = self._interpreters[name]
        interpreter.invoke()
        return [interpreter.get_tensor(index)[0] for index in self._outputs[name]]


def identity() -> str:
    """What decides the numbers, in words, for a plan's hash.

    Raises
    ------
    UsageError
        LiteRT is not installed.
    """
    _interpreter()
    return f"LiteRT {version('ai-edge-litert')}"


@contextmanager
def _without_notes() -> Iterator[None]:
    """Keep from stderr what LiteRT notes about itself, in the midst of a display; whatever else is said there is."""
    before = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            said.seek(0)
            for line in said:
                if not line.startswith(b"INFO: "):
                    os.write(2, line)


def _interpreter() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except (ImportError, OSError) as error:
        raise UsageError(f"keypoints on the CPU need LiteRT: {error}. Run: pip install gpupipe[keypoints]") from error
    return Interpreter
