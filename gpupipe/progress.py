"""The state of a run as it is shown, and what shows it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from gpupipe.gauges import Gauge
from gpupipe.pulse import Beat


@dataclass
class Snapshot:
    """The state of a run, for displays; plain values."""

    total: int
    earlier: int = 0
    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    stages: dict[str, float] = field(default_factory=dict)
    workers: list[tuple[int, Beat]] = field(default_factory=list)
    gpus: list[Gauge] = field(default_factory=list)
    cpu_seconds: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0
    peak_bytes: int = 0
    deaths: int = 0
    audited: int = 0
    differences: int = 0

    @property
    def left(self) -> int:
        """Items without an outcome."""
        return self.total - self.done - self.failed

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to the end at the present rate; None where there is no rate yet."""
        return self.left / self.rate if self.rate > 0 else None


class Reporter(Protocol):
    """Shows a run to a person."""

    def update(self, snapshot: Snapshot) -> None:
        """Called a few times a second."""

    def notice(self, text: str) -> None:
        """A line worth keeping."""
