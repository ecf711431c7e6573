"""The real MediaPipe as an executor: the fallback, and the judge of the others."""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import numpy as np

from gpupipe.closing import Closing
from gpupipe.errors import InputError, UsageError
from gpupipe.ops.keypoints.mediapipe_server import ANSWER_NBYTES, HELLO, REQUEST, STATIC
from gpupipe.ops.keypoints.models import FETCH, VERSION
from gpupipe.ops.keypoints.original import environment_folder, original_python
from gpupipe.ops.keypoints.points import COUNTS, PARTS, POINTS, Keypoints
from gpupipe.ops.keypoints.stages import Pixels, picture_of

SERVER = Path(__file__).with_name("mediapipe_server.py")
_FIRST_NBYTES = 1 << 20
_MOST_WORDS = 1 << 16
_LAST_LINES = 3
_LAST_NBYTES = 1 << 12
_CHATTER = re.compile(r"INFO: |WARNING: |[IW]\d{4} ")  # as its libraries begin their notes and warnings
_END_SECONDS = 10.0  # in which a process that has hung up comes to its end: Python's own way out, or a core dump
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class MediaPipe(Closing):
    """MediaPipe's Holistic in a process of its own, 350 to 380 MB; it finds what the native executors find.

    That process ends with :meth:`close`, and lives no longer than the thread that made it. If an image kills it, that
    image alone fails, and the next one has a new process; but a clip's memory dies with it, and what follows
    without :meth:`reset` is found as if a clip began there.

    Used by one thread at a time.

    Parameters
    ----------
    mode : str
        ``"stateless"``: each image by itself, to the bit as in a graph made anew for it; it costs MediaPipe a blank
        image before each. ``"video"``: the body is followed from frame to frame and its points are smoothed.
        ``"legacy_static"``: MediaPipe's ``static_image_mode`` as it is, which follows hands and faces from image to
        image.
    detection_confidence, tracking_confidence : float
        MediaPipe's ``min_detection_confidence`` and ``min_tracking_confidence``.

    Raises
    ------
    MissingInputError
        The environment was not made.
    UsageError
        There is no such mode, or MediaPipe does not start.
    """

    def __init__(self, mode: str, detection_confidence: float = 0.5, tracking_confidence: float = 0.5) -> None:
        if mode not in STATIC:
            raise UsageError(f"mode {mode!r}: expected one of {', '.join(STATIC)}")
        self._arguments = (mode, repr(float(detection_confidence)), repr(float(tracking_confidence)))
        self._stateless = mode == "stateless"
        self._pixels_fd = os.memfd_create("gpupipe-pixels")
        os.ftruncate(self._pixels_fd, _FIRST_NBYTES)
        self._pixels = mmap.mmap(self._pixels_fd, _FIRST_NBYTES)
        self._words = _Words()
        answer = bytearray(ANSWER_NBYTES)
        self._answer = memoryview(answer)
        self._points = np.frombuffer(answer, "<f4", POINTS * 3).reshape(POINTS, 3)
        self._visibility = np.frombuffer(answer, "<f4", COUNTS["pose"], self._points.nbytes)
        self._valid = np.frombuffer(answer, np.bool_, len(PARTS), ANSWER_NBYTES - len(PARTS))
        self._process: subprocess.Popen[bytes] | None = None
        self._begins = True
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def find(self, image: Pixels) -> Keypoints:
        """Points of the next image; see :meth:`gpupipe.ops.keypoints.holistic.Holistic.find`."""
        found = Keypoints.nobody()
        self.find_into(image, found)
        return found

    def find_into(self, image: Pixels, found: Keypoints) -> None:
        """As :meth:`find`, into arrays of the caller; all of them are written.

        Raises
        ------
        InputError
            `image` is not uint8 [height, width, 3], or MediaPipe died of it, or, within a clip, since the last one.
        UsageError
            It had died, and does not start any more.
        """
        image = picture_of(image).pixels
        found.clear()
        if self._process is None:
            self._start()
        elif self._process.poll() is not None:  # between two images, of neither
            how = self._end()
            if not self._stateless and not self._begins:
                raise InputError(f"MediaPipe {how}, and what it remembered of this clip is lost; do the clip again")
            self._start()
        begins, self._begins = self._begins, False
        try:
            if not self._ask(image, begins):
                height, width = image.shape[:2]
                raise InputError(
                    f"MediaPipe {self._end()} at this image of {height} x {width}. Leave the image out, or use another "
                    "executor"
                )
        except BaseException:  # also Ctrl-C: no answer to this image may be taken for that to the next
            self._stop()
            raise
        np.copyto(found.points, self._points)
        np.copyto(found.visibility, self._visibility)
        np.copyto(found.valid, self._valid)

    def reset(self) -> None:
        """Forget everything: the next image begins a clip."""
        self._begins = True

    def close(self) -> None:
        """End the process."""
        self._stop()
        self._pixels.close()
        self._words.close()
        if self._pixels_fd >= 0:
            os.close(self._pixels_fd)
            self._pixels_fd = -1

    def _ask(self, image: Pixels, begins: bool) -> bool:
        """One image; False if the process is gone before it has answered."""
        if image.nbytes > len(self._pixels):
            self._pixels.resize(image.nbytes)
        np.frombuffer(self._pixels, np.uint8, image.nbytes)[:] = image.reshape(-1)
        try:
            self._connection.sendall(REQUEST.pack(*image.shape[:2], begins))
        except (BrokenPipeError, ConnectionResetError):
            return False
        answered = _receive(self._connection, self._answer)
        self._words.shorten()
        return answered

    def _start(self) -> None:
        python = original_python()
        self._words.forget()
        self._connection, theirs = socket.socketpair()
        fds = (theirs.fileno(), self._pixels_fd)
        command = [str(python), "-I", str(SERVER), *map(str, fds), str(os.getpid()), *self._arguments]
        try:
            with theirs:
                self._process = subprocess.Popen(
                    command,
                    pass_fds=fds,
                    stdin=subprocess.DEVNULL,
                    stdout=self._words.fd,
                    stderr=self._words.fd,
                    env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
                )
        except OSError as error:
            self._connection.close()
            raise UsageError(_no_start(python, str(error))) from error
        try:
            self._greet(python)
        except BaseException:
            self._stop()
            raise
        self._begins = True

    def _greet(self, python: Path) -> None:
        hello = bytearray(HELLO.size)
        if not _receive(self._connection, memoryview(hello)):
            raise UsageError(_no_start(python, f"it {self._end()}"))
        version = HELLO.unpack(hello)[0].rstrip(b"\0").decode()
        if version != VERSION:
            raise UsageError(_no_start(python, f"it is {version}, expected {VERSION}"))

    def _end(self) -> str:
        """Wait for the end of the process that has hung up: how it ended, and what it said last."""
        assert self._process is not None
        try:
            how = _status(self._process.wait(_END_SECONDS))
        except subprocess.TimeoutExpired:
            how = "hung up"
        said = self._words.last()
        self._stop()
        return f"{how}{said and f' ({said})'}"

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()  # it holds nothing that could be lost
            self._process.wait()
            self._process = None
            self._connection.close()


class _Words:
    """What the process prints, kept in memory: hundreds of lines that mean nothing until it dies."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("gpupipe-mediapipe-words")
        fcntl.fcntl(self.fd, fcntl.F_SETFL, os.O_APPEND)  # so that it goes on at the start when that was cut off

    def forget(self) -> None:
        """Drop all of it."""
        os.ftruncate(self.fd, 0)

    def shorten(self) -> None:
        """Drop it if it is much."""
        if os.fstat(self.fd).st_size > _MOST_WORDS:
            self.forget()

    def last(self) -> str:
        """The last lines, without those that are no errors."""
        said = os.pread(self.fd, _LAST_NBYTES, max(0, os.fstat(self.fd).st_size - _LAST_NBYTES))
        lines = [line.strip() for line in said.decode(errors="replace").splitlines()]
        return " | ".join([line for line in lines if line and not _CHATTER.match(line)][-_LAST_LINES:])

    def close(self) -> None:
        """Give the memory back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def identity() -> str:
    """What decides the numbers, in words, for a plan's hash.

    Raises
    ------
    MissingInputError
        The environment was not made.
    """
    original_python()
    return f"MediaPipe {VERSION}"


def _receive(connection: socket.socket, into: memoryview) -> bool:
    """Fill `into`; False at the other end's close."""
    while into:
        try:
            count = connection.recv_into(into)
        except ConnectionResetError:
            count = 0
        if count == 0:
            return False
        into = into[count:]
    return True


def _status(code: int) -> str:
    if code >= 0:
        return f"ended with exit status {code}"
    why = ", as when memory runs out" if code == -signal.SIGKILL else ""
    return f"was ended by signal {-code}, {signal.strsignal(-code)}{why}"


def _no_start(python: Path, how: str) -> str:
    return (
        f"{python}: MediaPipe does not start: {how}. It needs 400 MiB of memory; if it had them, remove "
        f"{environment_folder()} and run: {FETCH} --environment"
    )
