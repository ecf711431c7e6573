"""What every job's command shares: its flags, ``gpupipe.toml``, the displays and the closing words."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gpupipe import launch
from gpupipe.cli.say import say
from gpupipe.decode import BACKENDS, MAX_PIXELS
from gpupipe.errors import UsageError
from gpupipe.fingerprint import KINDS
from gpupipe.job import AnyJob
from gpupipe.progress import Reporter
from gpupipe.reports.final import final_text
from gpupipe.reports.forecast import forecast_text
from gpupipe.settings import MAX_FAILURE_RATE, Run, run_of
from gpupipe.shown import forecast_of, run_shown
from gpupipe.sinks.base import SHARD_SIZE
from gpupipe.summary import Summary

SETTINGS = Path("gpupipe.toml")
_NUMBER_OR_TEXT = ("gpus", "gpu_ids")  # "all" or 2; an index or a UUID


def add_video_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of every job that decodes videos."""
    parser.add_argument("--stream", type=int, metavar="N", help="video stream (default: the one FFmpeg calls best)")
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        metavar="N",
        help="larger pictures fail (default: %(default)s, 8K)",
    )


def add_shard_size(parser: argparse.ArgumentParser) -> None:
    """The flag of every job whose output is cut into shards."""
    parser.add_argument(
        "--shard-size", type=int, default=SHARD_SIZE, metavar="N", help="items an output shard (default: %(default)s)"
    )


def add_job_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that say how a job is run, the same for every job."""
    group = add_run_flags(parser)
    group.add_argument("--overwrite", action="store_true", help="remove what an earlier run made, start anew")
    group.add_argument("--resume", action="store_true", help="accepted; the same command always continues")
    group.add_argument("--backend", choices=BACKENDS, default="auto", help="decoder (default: %(default)s)")
    group.add_argument("--num-nodes", type=int, metavar="N", help="accepted; see the README on clusters")
    group.add_argument("--batch-size", type=int, metavar="N", help="accepted; the batch is chosen by what fits")
    group.add_argument("--dry-run", action="store_true", help="say what would run and what it needs; start nothing")
    parser.set_defaults(max_failure_rate=MAX_FAILURE_RATE)


def add_run_flags(parser: argparse.ArgumentParser) -> Any:
    """Flags of every command that works items; returns their group."""
    group = parser.add_argument_group("the run (changes no byte of the output)")
    group.add_argument("--num-workers", type=int, metavar="N", help="CPU processes (default: one a usable core)")
    group.add_argument("--gpus", "--num-gpus", type=gpus, metavar="all|N", help="how many GPUs (default: all)")
    group.add_argument(
        "--gpu-ids", nargs="+", default=(), metavar="G", help="index or UUID of each GPU; repeats are weights"
    )
    group.add_argument("--num-workers-per-gpu", type=int, default=1, metavar="N", help="(default: %(default)s)")
    group.add_argument(
        "--audit", type=float, default=0.0, metavar="SHARE", help="make items of GPUs again on the CPU and compare"
    )
    group.add_argument("--shard", type=int, default=0, metavar="I", help="this run's part, from 0")
    group.add_argument("--total-shards", type=int, default=1, metavar="N", help="parts that share the output")
    group.add_argument("--continue-on-error", action="store_true", help="exit 0 though items failed")
    group.add_argument("--fail-fast", action="store_true", help="stop at the first failed item")
    group.add_argument(
        "--max-failure-rate", type=float, metavar="R", help="stop when more items fail, judged after 100"
    )
    group.add_argument("--item-timeout", type=float, metavar="S", help="an item at work for longer hangs")
    group.add_argument("--memory-per-worker", type=nbytes, metavar="BYTES", help="bound, such as 2G (default: none)")
    group.add_argument("--fingerprint", choices=KINDS, default="stat", help="how a changed input is known")
    group.add_argument("--checkpoint-file", type=Path, metavar="F", help="export processed_indices and timestamp")
    group.add_argument("--metrics-port", type=int, metavar="N", help="serve Prometheus metrics on 127.0.0.1 (0: any)")
    group.add_argument("--quiet", action="store_true", help="print nothing but errors")
    group.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    return group


def nbytes(text: str) -> int:
    """``"512M"``, ``"2G"``, ``"1.5GiB"``, ``"2000000000"``: bytes, in powers of 1024."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a size such as 2G or 512M")
    try:
        return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text!r}: larger than any memory") from None


def gpus(text: str) -> str | int:
    """``"all"``, or how many."""
    if text == "all":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected all or a number") from None


def read_settings(parser: argparse.ArgumentParser, job: str) -> None:
    """Take defaults from the table of `job` in ``./gpupipe.toml``; flags on the command line win.

    Raises
    ------
    UsageError
        The file is no TOML, or names a flag the job does not have.
    """
    if not SETTINGS.is_file():
        return
    try:
        table = tomllib.loads(SETTINGS.read_text(encoding="utf-8")).get(job, {})
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{SETTINGS}: {error}") from error
    if not isinstance(table, dict):
        raise UsageError(f"{SETTINGS}: {job} is {table!r}; expected a table [{job}]")
    defaults: dict[str, Any] = {key.replace("-", "_"): value for key, value in table.items()}
    flags = {action.dest: action for action in parser._actions}
    for key, value in defaults.items():
        if key not in flags or key == "help":
            raise UsageError(f"{SETTINGS}: [{job}] has no setting {key!r}")
        defaults[key] = _setting(flags[key], value, f"{SETTINGS}: [{job}] {key} = {value!r}")
    parser.set_defaults(**defaults)


def _setting(flag: argparse.Action, value: Any, where: str) -> Any:
    """The value as the flag would have it from the command line."""
    if flag.nargs == 0:
        if not isinstance(value, bool):
            raise UsageError(f"{where}: expected true or false")
        return value
    values = value if flag.nargs == "+" else [value]
    if not isinstance(values, list):
        raise UsageError(f"{where}: expected a list")
    kind = flag.type if flag.type in (int, float) else str
    taken = (int, float) if kind is float else (int, str) if flag.dest in _NUMBER_OR_TEXT else kind
    for one in values:
        if isinstance(one, bool) or not isinstance(one, taken):
            raise UsageError(f"{where}: expected {'a number' if kind is not str else 'text in quotes'}")
        if flag.choices is not None and one not in flag.choices:
            raise UsageError(f"{where}: expected one of {', '.join(flag.choices)}")
    if flag.dest in _NUMBER_OR_TEXT:
        values = [str(one) for one in values]
    made = [Path(one) if flag.type is Path else one for one in values]
    return made if flag.nargs == "+" else made[0]


def check_given(arguments: argparse.Namespace, *names: str) -> None:
    """Raise :class:`UsageError` where a flag that the job cannot do without came from nowhere."""
    for name in names:
        if getattr(arguments, name) is None:
            raise UsageError(
                f"--{name.replace('_', '-')} is missing: give it on the command line or in ./{SETTINGS} under "
                f"[{arguments.command}]"
            )


def run_asked(arguments: argparse.Namespace, output: Path) -> Run:
    """The run that the flags ask for."""
    ids = [word for words in arguments.gpu_ids for word in str(words).replace(",", " ").split()]
    return run_of(output, {**vars(arguments), "gpu_ids": ids})


def run_job(
    job: AnyJob,
    arguments: argparse.Namespace,
    output: Path,
    unit: str,
    work: Callable[[AnyJob, Run, Reporter], Summary] = launch.run,
) -> int:
    """Run a job as its flags ask for, or say what that would be; returns the exit code."""
    run, notices = run_asked(arguments, output), []
    if arguments.num_nodes not in (None, 1):
        notices.append(
            f"--num-nodes {arguments.num_nodes}: this run uses this machine alone; share the output with --shard"
        )
    if not arguments.dry_run:
        return run_and_report(lambda reporter: work(job, run, reporter), notices, arguments, unit)
    found = forecast_of(job, run, notices)
    if arguments.json:
        say(json.dumps(found.to_json()))
    elif not arguments.quiet:
        say(forecast_text(found, unit))
    for problem in found.problems:
        print(f"gpupipe: {problem}", file=sys.stderr)
    return found.exit_code


def run_and_report(
    work: Callable[[Reporter], Summary], notices: Iterable[str], arguments: argparse.Namespace, unit: str
) -> int:
    """Do the work under the display that fits, print the closing words, return the exit code."""
    port = arguments.metrics_port
    summary = run_shown(work, unit, progress=not arguments.quiet, notices=notices, metrics_port=port)
    if arguments.json:
        say(json.dumps(summary.to_json()))
    elif not arguments.quiet:
        say(final_text(summary, unit))
    return summary.exit_code
