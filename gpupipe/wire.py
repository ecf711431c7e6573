"""Messages between supervisor and worker: one JSON value a line over a socket pair. No pixels, no pickles."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any


class Wire:
    """One end of a connection. Any thread may send, which blocks; one receives, and takes what is there."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._rest = b""
        self._sending = threading.Lock()
        self.closed = False

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    def send(self, message: Any) -> bool:
        """Send one message; False where the other end is gone."""
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        try:
            with self._sending:
                self._socket.sendall(line)
        except (BrokenPipeError, ConnectionResetError):
            self.closed = True
        return not self.closed

    def receive(self) -> list[Any]:
        """Wait for bytes; return the whole messages so far. At the other end's close: the rest, and ``closed``."""
        try:
            data = self._socket.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
            return []  # half a line from a killed process is no message
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
