"""A prober: one process that looks at the inputs of items, one at a time, and says what their headers say.

Started like a worker, and for the same reason: a file may take the process along that reads it.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpupipe.job import Job, restore
from gpupipe.plan import Plan
from gpupipe.pulse import Pulse
from gpupipe.wire import Wire
from gpupipe.worker import bind_memory, die_with_parent


def main() -> None:
    """Entry point of the process: the setup of a worker first, then ``{"probe": ordinal}``, until the wire closes."""
    fd, pulse_fd, parent = map(int, sys.argv[1:4])
    die_with_parent(parent)
    wire, pulse = Wire(socket.socket(fileno=fd)), Pulse(pulse_fd)
    messages = _messages(wire)
    first = next(messages, None)
    if first is None:
        return
    setup = first["setup"]
    bind_memory(setup["memory_bytes"])
    try:
        plan = Plan(Path(setup["bookkeeping"], "plan"))
        job = restore(setup["job"], setup["options"], setup["inputs"])
        for message in messages:
            ordinal = message["probe"]
            pulse.item(ordinal)
            answer = _probe(job, plan.item(ordinal))
            pulse.item(None)
            wire.send(answer)
    except MemoryError:
        wire.send({"starved": pulse.read().ordinal})
        os._exit(1)
    except Exception:
        wire.send({"fatal": traceback.format_exc()})
        raise


def _messages(wire: Wire) -> Iterator[Any]:
    while not wire.closed:
        yield from wire.receive()


def _probe(job: Job, item: Any) -> dict[str, Any]:
    try:
        return {"facts": asdict(job.probe(item))}
    except MemoryError:
        raise
    except Exception as error:  # whatever it is, the item's own work meets it too
        return {"error": type(error).__name__, "message": str(error)}


if __name__ == "__main__":
    main()
