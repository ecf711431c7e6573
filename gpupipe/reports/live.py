"""What a person sees during a run: a live display on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gpupipe.gauges import Gauge
from gpupipe.progress import Snapshot
from gpupipe.pulse import Beat

_LINE_SECONDS = 10.0
_WORKERS_SHOWN = 16


class Quiet:
    """Shows nothing; the others build on it. Nothing that happens to a display ends a run."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    def __enter__(self) -> Quiet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, snapshot: Snapshot) -> None:
        """Nothing."""

    def notice(self, text: str) -> None:
        """Kept for the summary."""
        self.notices.append(text)


class Lines(Quiet):
    """Plain log lines, one every ten seconds, for a log file or a pipe."""

    def __init__(self, stream: TextIO = sys.stderr, unit: str = "items") -> None:
        super().__init__()
        self._stream: TextIO | None = stream
        self._unit = unit
        self._shown = float("-inf")
        self._worked = 0

    def update(self, snapshot: Snapshot) -> None:
        """A line when it is time, and one at the end."""
        now = time.monotonic()
        if snapshot.left and now - self._shown < _LINE_SECONDS:
            return
        worked = snapshot.done + snapshot.failed
        if worked != self._worked:
            self._print(headline(snapshot, self._unit))
            self._shown, self._worked = now, worked

    def notice(self, text: str) -> None:
        """At once."""
        super().notice(text)
        self._print(f"notice: {text}")

    def _print(self, line: str) -> None:
        if self._stream is not None:
            try:
                print(f"{time.strftime('%H:%M:%S')} {line}", file=self._stream, flush=True)
            except OSError:  # nobody reads any more (a pipe's end, a closed terminal)
                self._stream = None


class Display(Quiet):
    """A live display: progress, rate, failures by reason, what each worker does, where the time goes."""

    def __init__(self, stream: TextIO = sys.stderr, unit: str = "items") -> None:
        super().__init__()
        self._unit = unit
        self._console = Console(file=stream)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._gone = False

    def __enter__(self) -> Display:
        self._draws(self._live.start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._draws(self._live.stop)

    def update(self, snapshot: Snapshot) -> None:
        """Draw the state anew."""
        self._draws(lambda: self._live.update(self._draw(snapshot), refresh=True))

    def notice(self, text: str) -> None:
        """A line above the display."""
        super().notice(text)
        self._draws(lambda: self._console.print(Text(text, style="yellow")))

    def _draws(self, draw: Callable[[], None]) -> None:
        if not self._gone:
            try:
                draw()
            except OSError:  # the terminal was closed
                self._gone = True

    def _draw(self, shown: Snapshot) -> Group:
        bar = Table.grid()  # a bar alone ends no line
        bar.add_row(
            ProgressBar(
                total=max(1, shown.total),
                completed=shown.done + shown.failed,
                width=min(72, self._console.width),
            )
        )
        parts: list[Text | Table] = [Text(headline(shown, self._unit), style="bold", no_wrap=True), bar]
        if shown.reasons:
            parts.append(Text("failed: " + reasons_line(shown.reasons), style="red"))
        if shown.stages:
            parts.append(Text("time:   " + shares_line(shown.stages), style="cyan"))
        if shown.gpus:
            parts.append(Text("\n".join(map(gpu_line, shown.gpus)), style="magenta"))
        parts.append(self._worker_table(shown.workers))
        return Group(*parts)

    def _worker_table(self, workers: list[tuple[int, Beat]]) -> Table:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for number, beat in workers[:_WORKERS_SHOWN]:
            at = "idle" if beat.ordinal is None else f"item {beat.ordinal}"
            since = "" if beat.ordinal is None else f"{beat.seconds:.1f} s"
            table.add_row(Text(f"worker {number}", style="dim"), at, beat.stage, since)
        if len(workers) > _WORKERS_SHOWN:
            table.add_row(Text(f"... and {len(workers) - _WORKERS_SHOWN} more", style="dim"))
        return table


def gpu_line(gauge: Gauge) -> str:
    """``cuda:0  SM 4%  NVDEC 93%  3.1 GiB``, of what the card tells."""
    sample = gauge.sample
    if sample.lost is not None:
        return f"{gauge.label}  {sample.lost}"
    shares = (("SM", sample.sm_percent), ("NVDEC", sample.decoder_percent), ("NVJPG", sample.jpeg_percent))
    words = [f"{name} {share}%" for name, share in shares if share is not None]
    if sample.memory_used_bytes is not None:
        words.append(f"{sample.memory_used_bytes / (1 << 30):.1f} GiB")
    return "  ".join([gauge.label, *words])


def headline(shown: Snapshot, unit: str) -> str:
    """``120/300 (40%)  8.1 clips/s  eta 0:22  2 failed``."""
    worked = shown.done + shown.failed
    percent = 100 * worked // shown.total if shown.total else 100
    words = [f"{worked}/{shown.total} ({percent}%)", f"{shown.rate:.1f} {unit}/s"]
    if shown.left and shown.eta_seconds is not None:
        words.append(f"eta {duration(shown.eta_seconds)}")
    words.append(f"elapsed {duration(shown.seconds)}")
    if shown.failed:
        words.append(f"{shown.failed} failed")
    return "  ".join(words)


def duration(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def reasons_line(reasons: dict[str, int] | Counter[str]) -> str:
    """Failures by reason, most first."""
    return ", ".join(f"{name} {count}" for name, count in Counter(reasons).most_common())


def shares_line(stages: dict[str, float]) -> str:
    """Shares of the workers' time, most first."""
    total = sum(stages.values()) or 1.0
    shares = sorted(stages.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{name} {100 * seconds / total:.0f}%" for name, seconds in shares if seconds / total >= 0.005)
