"""The file of progress that users' own monitoring scripts read."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from gpupipe.ledger import Ledger
from gpupipe.outcome import DONE
from gpupipe.sinks.files import publish

_SECONDS = 5.0  # between two versions


class Checkpoint:
    """Indices done, and a time such that indices / (now - time) is the rate; never read by gpupipe.

    Parameters
    ----------
    path : Path or None
        None where nobody asked for one.
    staging : Path
        Folder for the file in the making.
    ledger : Ledger
        Of the run shard.
    states : array of uint8 [items]
        As the run keeps them up to date.
    """

    def __init__(self, path: Path | None, staging: Path, ledger: Ledger, states: np.ndarray) -> None:
        self._path, self._staging, self._ledger, self._states = path, staging, ledger, states
        self._written = float("-inf")

    def write(self, last: bool = False) -> None:
        """Write it anew where it is old enough, or the last time."""
        if self._path is None or (not last and time.monotonic() - self._written < _SECONDS):
            return
        self._written = time.monotonic()
        active = sum(record.seconds for record in self._ledger.runs())
        text = json.dumps(
            {"processed_indices": np.flatnonzero(self._states == DONE).tolist(), "timestamp": time.time() - active}
        )
        # Beside it a kill would leave a rest for good: ours is swept.
        here = self._staging.stat().st_dev == self._path.absolute().parent.stat().st_dev
        publish(self._path, [text.encode()], self._staging if here else None)
