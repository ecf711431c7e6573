"""Stands in for MediaPipe behind the real server, see test_mediapipe_executor.py: the first pixel says what it does."""

import os
import signal
import socket
import sys
import zlib

import numpy as np

from gpupipe.ops.keypoints import mediapipe_server as server
from gpupipe.ops.keypoints.models import VERSION

NOBODY, PERSON, KILLED, FAILS, HANGS_UP, HALF_ANSWERS, SLEEPS, CHATTERS = range(8)
CHATTER = 1 << 20


def checksum(image):
    """One that float32 can hold."""
    return zlib.crc32(image.tobytes()) & 0xFFFFFF


class FakeMediaPipe:
    """Counts the images of a clip, and looks at their pixels."""

    def __init__(self, mode, detection, tracking):
        self.version = os.environ.get("FAKE_VERSION", VERSION)
        if self.version == "none":
            import mediapipe_that_is_not_there  # noqa: F401
        self._confidences = detection, tracking
        self._count = 0

    def find(self, image, begins):
        if begins:
            self._count = 0
        self._count += 1
        what = image[0, 0, 0]
        if what == NOBODY:
            return {}
        if what == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        if what == FAILS:
            print("I0000 00:00:1 a note", "the last words", sep="\n", file=sys.stderr)
            raise RuntimeError("cannot see")
        connection = socket.socket(fileno=os.dup(int(sys.argv[1])))
        if what == HANGS_UP:
            connection.shutdown(socket.SHUT_RDWR)
            signal.pause()
        if what == HALF_ANSWERS:
            connection.sendall(bytes(100))
            os.kill(os.getpid(), signal.SIGKILL)
        if what == SLEEPS:
            os.kill(os.getppid(), signal.SIGUSR1)
            signal.pause()
        connection.close()
        if what == CHATTERS:
            os.write(1, b"x" * CHATTER)
        pose = np.arange(33 * 4, dtype=np.float32).reshape(33, 4)
        pose[0, :3] = *image.shape[:2], checksum(image)
        pose[1, :3] = self._count, *self._confidences
        return {"pose": pose, "right_hand": -np.arange(63, dtype=np.float32).reshape(21, 3)}


if __name__ == "__main__":
    server.main(sys.argv[1:], FakeMediaPipe)
