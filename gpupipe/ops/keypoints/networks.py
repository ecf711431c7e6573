"""The networks on the CPU, by OpenVINO: it reads MediaPipe's files as they are, sparse and half-float weights too.

Chosen by measurement (one thread, ms; AMD EPYC with AVX-512; both agree to 2e-6 of the largest value):

===================  ========  =========
network              OpenVINO  LiteRT
===================  ========  =========
pose_detection          10.45      10.66
pose_landmark            9.43      14.77
hand_recrop              1.33       1.16
hand_landmark            8.13       8.38
face_detection           1.63       1.31
face_landmark            1.94       1.49
===================  ========  =========

The segmentation mask, which no one asks for, is cut off the pose's network; LiteRT cannot do that.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from tempfile import NamedTemporaryFile
from typing import Any

from gpupipe.errors import UsageError
from gpupipe.ops.keypoints.graph import NETWORKS
from gpupipe.ops.keypoints.points import Floats

_OPTIONS = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "INFERENCE_PRECISION_HINT": "f32",  # by itself it takes bfloat16 where the processor has it
    "ENABLE_CPU_PINNING": False,  # else all workers sit on the first core
}


class Networks:
    """All networks of the graph, one thread; 230 MB of memory and a second to make. Used by one thread at a time.

    Parameters
    ----------
    models : mapping of str to bytes
        See :func:`gpupipe.ops.keypoints.models.read_models`.

    Raises
    ------
    UsageError
        OpenVINO is not installed.
    """

    def __init__(self, models: Mapping[str, bytes]) -> None:
        openvino = _openvino()
        core = openvino.Core()
        self._requests: dict[str, Any] = {}
        self._inputs: dict[str, Floats] = {}
        for name, network in NETWORKS.items():
            with NamedTemporaryFile(suffix=".tflite") as file:  # OpenVINO reads this format from files only
                file.write(models[name])
                file.flush()
                whole = core.read_model(file.name)
            wanted = openvino.Model([whole.output(place) for place in network.outputs], whole.get_parameters(), name)
            request = core.compile_model(wanted, "CPU", _OPTIONS).create_infer_request()
            self._requests[name] = request
            self._inputs[name] = request.get_input_tensor().data[0]

    def input(self, name: str) -> Floats:
        """A network's input, float32 [size, size, 3], to be written before :meth:`run`."""
        return self._inputs[name]

    def run(self, name: str) -> list[Floats]:
        """Run a network on its input; its wanted outputs without their batch axis, good until the next run."""
        request = self._requests[name]
        request.infer(share_outputs=True)
        return [tensor.data[0] for tensor in request.output_tensors]


def identity() -> str:
    """What decides the numbers, in words, for a plan's hash.

    Raises
    ------
    UsageError
        OpenVINO is not installed.
    """
    _openvino()
    return f"OpenVINO {version('openvino')}, float32"


def _openvino() -> Any:
    try:
        import openvino
    except (ImportError, OSError) as error:
        raise UsageError(f"keypoints on the CPU need OpenVINO: {error}. Run: pip install gpupipe[keypoints]") from error
    return openvino
