"""MediaPipe's own Holistic in a process of its own; runs in MediaPipe's environment and imports nothing of gpupipe.

``python -I mediapipe_server.py SOCKET_FD PIXELS_FD PARENT MODE DETECTION TRACKING``, started by
:mod:`gpupipe.ops.keypoints.mediapipe_executor`. It sends :data:`HELLO`; from then on each :data:`REQUEST`, about the
image that lies at the start of the shared pixels, is answered by :data:`ANSWER_NBYTES`: points (float32 [543, 3]),
visibility (float32 [33]) and valid (bool [4]). What it cannot do it dies of, and says why on its standard error.

Python 3.9 to 3.12, NumPy 1.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

HELLO = struct.Struct("<16s")
"""The version, filled up with zero bytes."""

REQUEST = struct.Struct("<QQ?")
"""An image's height and width, and whether a clip begins with it."""

PARTS = (("pose", 33), ("left_hand", 21), ("right_hand", 21), ("face", 468))
"""Parts in the order of the points, and how many each has."""

STATIC = {"stateless": True, "video": False, "legacy_static": True}
"""Modes, and whether each is MediaPipe's static one."""

VISIBLE = PARTS[0][1]
"""Points whose visibility is told: those of the pose."""

POINTS = sum(count for _, count in PARTS)

ANSWER_NBYTES = 4 * (POINTS * 3 + VISIBLE) + len(PARTS)

_PR_SET_PDEATHSIG = 1
_BLANK = np.full((64, 64, 3), 255, np.uint8)
_RECORD = 0x0A  # protobuf: field 1, a message; of a list, one landmark
_FIELDS = bytes([0x0D, 0x15, 0x1D, 0x25, 0x2D])  # fields 1 to 5, float32: x, y, z, visibility, presence


class Graph(Protocol):
    """Whatever finds points."""

    version: str

    def find(self, image: Any, begins: bool) -> dict[str, Any]:
        """What is there of an image's parts, by name: float32 [count, 3], and [33, 4] of the pose."""


class Holistic:
    """The original.

    Parameters
    ----------
    mode : str
        One of :data:`STATIC`. In mode ``"stateless"`` it sees a blank image before each one, and then remembers
        nothing.
    detection, tracking : float
        Its confidences.
    """

    def __init__(self, mode: str, detection: float, tracking: float) -> None:
        import mediapipe  # type: ignore

        class OneThread(mediapipe.solutions.holistic.Holistic):  # type: ignore[misc]
            """Its graph asks for as many threads as there are cores, and has nothing for most of them to do."""

            def _initialize_graph_interface(self, *arguments: Any, **named: Any) -> Any:
                config = super()._initialize_graph_interface(*arguments, **named)
                del config.executor[:]
                config.num_threads = 1
                return config

        self.version = str(mediapipe.__version__)
        self._stateless = mode == "stateless"
        self._graph = OneThread(
            static_image_mode=STATIC[mode],
            model_complexity=1,
            refine_face_landmarks=False,
            min_detection_confidence=detection,
            min_tracking_confidence=tracking,
        )
        self._graph.process(
            _BLANK
        )  # it opens its networks only now: what is missing for that shall be no image's fault

    def find(self, image: Any, begins: bool) -> dict[str, Any]:
        """See :class:`Graph`."""
        if self._stateless:
            self._graph.process(_BLANK)
        elif begins:
            self._graph.reset()
        result, found = self._graph.process(image), {}
        for name, count in PARTS:
            landmarks = getattr(result, name + "_landmarks")
            if landmarks is not None:
                found[name] = numbers(landmarks.SerializeToString(), count)
        return found


def numbers(message: bytes, count: int) -> Any:
    """A list of landmarks, float32 [count, 3 or more]: x, y, z and, of a pose, visibility.

    They all have the same fields, so that the serialised list is an array of equal records, and the numbers are a view
    of it: 0.04 ms for a person with both hands, where a loop over the landmarks takes 0.23.

    Raises
    ------
    ValueError
        `message` is no such list.
    """
    records = np.frombuffer(message, np.uint8).reshape(count, -1)
    fields = records[:, 2:].reshape(count, -1, 1 + 4)
    head, tags = bytes([_RECORD, records.shape[1] - 2]), _FIELDS[: fields.shape[1]]
    if len(tags) < 3 or records[:, :2].tobytes() != head * count or fields[:, :, 0].tobytes() != tags * count:
        raise ValueError(f"{len(message)} bytes are not {count} landmarks: {message[:64].hex(' ')} ...")
    return fields[:, :, 1:].copy().view("<f4")[:, :, 0]


def answer(found: dict[str, Any]) -> bytes:
    """What was found, as it is sent."""
    points, visibility = np.zeros((POINTS, 3), "<f4"), np.zeros(VISIBLE, "<f4")
    valid, start = np.zeros(len(PARTS), np.bool_), 0
    for place, (name, count) in enumerate(PARTS):
        part = found.get(name)
        if part is not None:
            points[start : start + count] = part[:, :3]
            valid[place] = True
            if name == "pose":
                visibility[:] = part[:, 3]
        start += count
    return points.tobytes() + visibility.tobytes() + valid.tobytes()


def serve(connection: socket.socket, pixels_fd: int, graph: Graph) -> None:
    """Answer requests until the other side is gone."""
    connection.sendall(HELLO.pack(graph.version.encode()))
    pixels = mmap.mmap(pixels_fd, 0, prot=mmap.PROT_READ)  # read-only: MediaPipe then takes the image without a copy
    while True:
        request = connection.recv(REQUEST.size, socket.MSG_WAITALL)
        if len(request) < REQUEST.size:
            return
        height, width, begins = REQUEST.unpack(request)
        nbytes = height * width * 3
        if nbytes > len(pixels):  # it has grown
            pixels = mmap.mmap(pixels_fd, 0, prot=mmap.PROT_READ)
        image = np.frombuffer(pixels, np.uint8, nbytes).reshape(height, width, 3)
        connection.sendall(answer(graph.find(image, begins)))


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, also in the midst of native code."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)


def main(arguments: list[str], make: Callable[[str, float, float], Graph] = Holistic) -> None:
    """Entry point of the process; `make` is called with mode and confidences."""
    sys.tracebacklimit = 0  # the parent shows the last lines: they shall say what happened, not where in here
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which may want to finish the image
    die_with_parent(int(arguments[2]))
    connection = socket.socket(fileno=int(arguments[0]))
    serve(connection, int(arguments[1]), make(arguments[3], float(arguments[4]), float(arguments[5])))


if __name__ == "__main__":
    main(sys.argv[1:])
