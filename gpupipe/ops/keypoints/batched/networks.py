"""The graph's networks in torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpupipe.ops.keypoints.batched.network import TorchNetwork
from gpupipe.ops.keypoints.batched.runtime import Runtime
from gpupipe.ops.keypoints.graph import NETWORKS
from gpupipe.ops.keypoints.tflite import pruned

LANDMARKS = frozenset(("pose_landmark", "hand_landmark", "face_landmark"))
"""Networks that give points; what the others give decides where these look, and by how much all points are off."""


class TorchNetworks:
    """All networks of the graph on a device. Made and used by one thread at a time, inside of :meth:`Runtime.work`.

    Parameters
    ----------
    models : mapping of str to bytes
        See :func:`gpupipe.ops.keypoints.models.read_models`.
    runtime : Runtime
    """

    def __init__(self, models: Mapping[str, bytes], runtime: Runtime) -> None:
        with runtime.work():
            self._networks = {
                name: TorchNetwork(
                    pruned(models[name], network.outputs), runtime.device, runtime.dtype(name in LANDMARKS)
                )
                for name, network in NETWORKS.items()
            }

    def run(self, name: str, images: Any) -> list[Any]:
        """Outputs, float32 ``[N, ...]``, of a network for images, float32 ``[N, size, size, 3]``."""
        return self._networks[name](images)
