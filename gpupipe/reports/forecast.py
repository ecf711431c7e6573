"""The words of ``--dry-run``."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from gpupipe.estimate import Range, size_text
from gpupipe.forecast import Forecast, Items
from gpupipe.reports.live import duration, reasons_line, shares_line
from gpupipe.stages import START, WAITS
from gpupipe.trial import Reason, Survey

_WIDTH = 80
_NAMED = 4  # codecs, sizes and the like; the rest is counted


def forecast_text(found: Forecast, unit: str) -> str:
    """What would run, what its inputs are, how long it takes and what it needs; 80 columns."""
    lines = [f"dry run of {found.job}: nothing was started", _items(found.items, unit)]
    if found.total_shards > 1:
        lines[-1] += f" (run shard {found.shard} of {found.total_shards})"
    lines += [f"at work on it: {run}" for run in found.running]
    if found.survey.probed:
        lines += _survey(found.survey)
        lines += _trial(found)
        lines += _needs(found, unit)
    lines += [f"notice: {text}" for text in found.notices]
    lines.append(f"output: {found.output}{', planned' if found.planned else ''}")
    return "\n".join(_wrapped(line) for line in lines)


def _items(items: Items, unit: str) -> str:
    text = f"{items.total} {unit}: {items.to_do} to do"
    if items.done or items.failed:
        text += f"; {items.done} done, {items.failed} failed, {items.pending} pending"
    if items.changed_done or items.changed_failed:
        text += f"; again for a changed input: {items.changed_done} done, {items.changed_failed} failed"
    return text + (f"; the inputs of {items.gone} done ones are gone" if items.gone else "")


def _survey(survey: Survey) -> list[str]:
    lines = [f"sample of {survey.probed}: {survey.readable} readable", *_reasons(survey.reasons)]
    if survey.codecs:
        by = sorted({backend for backends in survey.backends.values() for backend in backends})
        several = len(by) > 1
        names = {
            f"{codec} (by {', '.join(survey.backends[codec])})" if several else codec: count
            for codec, count in survey.codecs.items()
        }
        lines.append(f"codecs: {_counted(names)}" + (f"; decoded by {by[0]}" if by and not several else ""))
    if survey.sizes:
        lines.append(f"pictures (height x width): {_counted(survey.sizes)}; {_counted(survey.layouts)}")
    if survey.seconds is not None:
        spread = survey.seconds
        lines.append(f"lengths: {spread.min:.1f} to {spread.max:.1f} s, half of them up to {spread.median:.1f} s")
    return lines


def _trial(found: Forecast) -> list[str]:
    trial = found.trial
    if not trial.worked:
        return []
    text = f"trial of {trial.worked}: {trial.done} done"
    if trial.seconds:
        text += f"; {_seconds(sum(trial.seconds) / len(trial.seconds))} an item of one worker"
    if trial.nbytes:
        text += f", {size_text(sum(trial.nbytes) / len(trial.nbytes))} of output"
    # What the headers already said need not be said again.
    others = {name: reason for name, reason in trial.reasons.items() if name not in found.survey.reasons}
    lines = [text, *_reasons(others)]
    busy = {name: seconds for name, seconds in trial.stages.items() if name not in (START, *WAITS)}
    return [*lines, f"time of an item: {shares_line(busy)}"] if busy else lines


def _needs(found: Forecast, unit: str) -> list[str]:
    lines = []
    if found.seconds is not None:
        lines.append(f"expected: {_about(found.seconds, duration)} with {found.workers} workers, {_supposed(found)}")
    else:
        lines.append("expected: unknown, the trial finished no item")
    if found.output_bytes is not None:
        room = "" if found.needed_bytes is None else f"; needs {size_text(found.needed_bytes)} of "
        lines.append(f"disk: {_about(found.output_bytes, size_text)}{room}{size_text(found.free_bytes)} free")
    if found.needed_memory_bytes is not None:
        lines.append(
            f"memory: {found.workers} workers of {size_text(found.trial.peak_bytes)} at most, "
            f"{size_text(found.needed_memory_bytes)} of {size_text(found.memory_bytes)}"
        )
    return lines


def _supposed(found: Forecast) -> str:
    rate = found.storage_bytes_per_second
    if found.storage_bound and rate is not None:
        return f"for storage that writes {size_text(rate)}/s"
    hands = min(found.workers, found.cores)
    work = f"if {hands} cores do {hands} times the work of one" if hands > 1 else "one at work at a time"
    return work if rate is not None else f"{work} and storage keeps up"


def _reasons(reasons: dict[str, Reason]) -> list[str]:
    most = sorted(reasons.items(), key=lambda pair: -pair[1].count)
    return [f"  {name} {reason.count}, as {reason.example}" for name, reason in most]


def _counted(counts: dict[str, int]) -> str:
    most = sorted(counts.items(), key=lambda pair: -pair[1])
    text = reasons_line(dict(most[:_NAMED]))
    return text + (f", others {sum(count for _, count in most[_NAMED:])}" if most[_NAMED:] else "")


def _about(value: Range, text: Callable[[float], str]) -> str:
    expected, low, high = text(value.expected), text(value.low), text(value.high)
    return expected if low == high else f"about {expected} ({low} to {high})"


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _wrapped(line: str) -> str:
    # Paths stay whole: they are copied from here.
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(line, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
