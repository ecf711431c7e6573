"""Programs on a terminal, and what they show there."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Sequence


def on_terminal(command: Sequence[str]) -> tuple[subprocess.Popen, int]:
    """Start a program on a pseudo-terminal of 100 columns; the process, and the end at which one reads."""
    reading, terminal = pty.openpty()
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=dict(os.environ, TERM="xterm", COLUMNS="100")
    )
    os.close(terminal)
    return process, reading


def shown_until_the_end(reading: int) -> bytes:
    """What is shown from here on; closes the end."""
    shown = b""
    while True:
        try:
            data = os.read(reading, 65536)
        except OSError:  # how a pseudo-terminal says that all is said
            break
        if not data:
            break
        shown += data
    os.close(reading)
    return shown
