"""The state of a run as Prometheus metrics, served on this machine alone while it runs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import ThreadingHTTPServer
from socketserver import TCPServer

from prometheus_client import CollectorRegistry, MetricsHandler
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gpupipe.errors import UsageError
from gpupipe.progress import Reporter, Snapshot

HOST = "127.0.0.1"
MAX_PORT = 65535


class Metrics(Collector):
    """A reporter that shows a run to another one and to whoever asks over HTTP.

    Parameters
    ----------
    reporter : Reporter
        Hears all that this one hears.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._shown = Snapshot(total=0)

    def update(self, snapshot: Snapshot) -> None:
        """Keep a copy: the run goes on changing its own while another thread reads."""
        self._shown = replace(snapshot, reasons=Counter(snapshot.reasons), stages=dict(snapshot.stages))
        self._reporter.update(snapshot)

    def notice(self, text: str) -> None:
        """Said by the other."""
        self._reporter.notice(text)

    def collect(self) -> Iterator[Metric]:
        """The last state."""
        shown = self._shown
        items = GaugeMetricFamily("gpupipe_items", "Items of this run's part of the output.", labels=["state"])
        for state, count in (("done", shown.done), ("failed", shown.failed), ("pending", shown.left)):
            items.add_metric([state], count)
        yield items
        failures = CounterMetricFamily("gpupipe_failures", "Items that failed in this run.", labels=["reason"])
        for reason, count in sorted(shown.reasons.items()):
            failures.add_metric([reason], count)
        yield failures
        stages = CounterMetricFamily("gpupipe_stage_seconds", "Time of the workers.", labels=["stage"])
        for stage, seconds in sorted(shown.stages.items()):
            stages.add_metric([stage], seconds)
        yield stages
        yield GaugeMetricFamily("gpupipe_items_per_second", "Items finished lately.", shown.rate)
        yield CounterMetricFamily("gpupipe_run_seconds", "Time since the run began.", shown.seconds)
        yield CounterMetricFamily("gpupipe_worker_cpu_seconds", "CPU time of the workers.", shown.cpu_seconds)
        text = "Bytes that the workers {}, page cache included."
        yield CounterMetricFamily("gpupipe_read_bytes", text.format("read"), shown.read_bytes)
        yield CounterMetricFamily("gpupipe_written_bytes", text.format("wrote"), shown.written_bytes)
        yield GaugeMetricFamily("gpupipe_workers", "Worker processes alive.", len(shown.workers))
        yield CounterMetricFamily("gpupipe_worker_deaths", "Worker processes that died.", shown.deaths)
        yield GaugeMetricFamily(
            "gpupipe_worker_resident_peak_bytes", "Largest resident memory of one worker.", shown.peak_bytes
        )


class _Server(ThreadingHTTPServer):
    allow_reuse_port = False  # newer Pythons would let two runs share one port

    def server_bind(self) -> None:
        # Not HTTPServer's own, which asks a name server who 127.0.0.1 is.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])


@contextmanager
def served(reporter: Reporter, port: int | None) -> Iterator[Reporter]:
    """Serve what `reporter` is told, for the length of the block.

    Parameters
    ----------
    reporter : Reporter
        Hears all of the run.
    port : int or None
        0 for any free one, which a notice names; None serves nothing.

    Yields
    ------
    Reporter
        The one to give to the run.

    Raises
    ------
    UsageError
        There is no such port, or it cannot be had.
    """
    if port is None:
        yield reporter
        return
    if not 0 <= port <= MAX_PORT:
        raise UsageError(f"--metrics-port {port}: expected a port, 1 to {MAX_PORT}, or 0 for a free one")
    metrics = Metrics(reporter)
    registry = CollectorRegistry()
    registry.register(metrics)
    try:
        server = _Server((HOST, port), MetricsHandler.factory(registry))
    except OSError as error:
        raise UsageError(
            f"--metrics-port {port}: cannot be had on {HOST} ({error.strerror}). Choose another, or 0 for a free one."
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True)
    thread.start()
    try:
        reporter.notice(f"metrics: http://{HOST}:{server.server_port}/metrics")
        yield metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
