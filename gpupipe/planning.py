"""From a job to its plan: the frozen one where there is one, a new one else; and the way back, ``--overwrite``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from types import NoneType
from typing import Any

from gpupipe import ownership
from gpupipe import plan as plans
from gpupipe.errors import UsageError
from gpupipe.job import Job, blob_names
from gpupipe.plan import BOOKKEEPING, Plan, PlanWriter
from gpupipe.progress import Reporter
from gpupipe.remains import FAILURES, Remains, path_of
from gpupipe.sinks.base import Place
from gpupipe.sinks.files import output_errors, remove_file, remove_tree, sync_folder

_KINDS = {NoneType: (int, str, NoneType), float: (int, float)}  # what else JSON may hold for an option's usual value
_NONE = ("", None)


def make_output(output: Path) -> None:
    """Make the output folder; raises :class:`UsageError` where that cannot be."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{output}: cannot be made ({error.strerror}). Choose another output folder.") from error


def source_facts(path: Path) -> dict[str, Any]:
    """Path, size and time of the file the items are planned from; raises :class:`UsageError` where it is not there.

    Of a folder only the path: nothing but looking through all of it tells whether it changed.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise UsageError(f"{path}: no such file ({error.strerror})") from error
    if S_ISDIR(stat.st_mode):
        return {"path": str(path.absolute()), "size": None, "mtime_ns": None}
    if not S_ISREG(stat.st_mode):
        raise UsageError(f"{path}: no such file (it is something else)")
    return {"path": str(path.absolute()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def check_checkpoint(path: Path, job: Job, output: Path) -> None:
    """Raise :class:`UsageError` where an export to `path` would replace anything but an earlier export."""
    where = f"--checkpoint-file {path}"
    path, out = path.absolute().parent.resolve() / path.name, output.resolve()
    own = {FAILURES, *job.remains()}
    if path.is_relative_to(out) and (path.parent != out or path.suffix != ".json" or path.name in own):
        raise UsageError(
            f"{where}: is for the dataset itself. Name a file beside the output folder, or in it one like progress.json"
        )
    try:
        if not S_ISREG(path.lstat().st_mode):
            raise UsageError(f"{where}: is there and no plain file, and would be replaced. Name another file.")
        if os.path.lexists(job.source()) and path.samefile(job.source()):
            raise UsageError(f"{where}: is the input of this run, and would be replaced. Name another file.")
        with path.open("rb") as file:
            start = file.read(4096)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{where}: cannot be read ({error.strerror}). Name another file.") from error
    if start and b'"processed_indices"' not in start:
        raise UsageError(f"{where}: is no earlier export, and would be replaced. Remove it, or name another file.")


def check_place(output: Path) -> Path:
    """The output folder, or the nearest folder above it that exists; raises :class:`UsageError` as a run would."""
    place = output
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise UsageError(f"{output}: cannot be made ({place} is no folder). Choose another output folder.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"{place}: not writable for this user. Choose another output folder.")
    return place


def load_or_make_plan(job: Job, output: Path, overwrite: bool, source: dict[str, Any], reporter: Reporter) -> Plan:
    """The frozen plan, if it is of the same configuration and inputs; a new one where there is none."""
    bookkeeping = output / BOOKKEEPING
    if not plans.exists(bookkeeping):
        if not overwrite:
            refuse_foreign(job, output, bookkeeping)
        return make_plan(job, bookkeeping, source, reporter)
    return load_plan(job, output, source, bookkeeping, reporter)


def refuse_foreign(job: Job, output: Path, scratch: Path) -> None:
    """Raise :class:`UsageError` where another program's output of this format lies; what a sink makes: in `scratch`."""
    if there := job.sink(Place(output, scratch, scratch, 0, job.shard_size)).foreign():
        raise UsageError(
            f"{output}: holds {there}, which no run of gpupipe recorded. Choose another output folder, or --overwrite."
        )
    for name in job.remains():
        beside = path_of(output, name)
        if beside.parent == output.parent and os.path.lexists(beside):  # the output that was asked for by its name
            raise UsageError(
                f"{beside}: is there, and no run of gpupipe recorded it. Choose another output, or --overwrite."
            )


def make_plan(job: Job, bookkeeping: Path, source: dict[str, Any], reporter: Reporter) -> Plan:
    """A new plan, frozen in its place."""
    writer = write_plan(job, bookkeeping, source)
    for text in writer.notices:
        reporter.notice(text)
    try:
        return writer.publish()
    except BaseException:
        writer.discard()
        raise


def load_plan(job: Job, output: Path, source: dict[str, Any], scratch: Path, reporter: Reporter) -> Plan:
    """The frozen plan of an output; raises :class:`UsageError` where it is of another configuration or other inputs.

    Where the items must be compared they are written to `scratch`.
    """
    with ExitStack() as opened:
        plan = opened.enter_context(closing(Plan(output / BOOKKEEPING / "plan")))
        lines = plans.differences(plan, job.name, job.options())
        if not lines and (plan.source != source or source["size"] is None):
            writer = write_plan(job, scratch, source)
            if writer.items_hash != plan.items_hash:
                lines.append(
                    f"items: {plan.count} from {plan.source.get('path')} there, "
                    f"{writer.count} others from {source['path']} asked"
                )
            writer.discard()
        if lines:
            raise UsageError(
                f"{output}: made with another configuration. Use another output folder, or --overwrite.\n  "
                + "\n  ".join(lines)
            )
        opened.pop_all()
    for key, value in job.inputs().items():
        if plan.inputs.get(key) != value:
            reporter.notice(_other_input(key, plan.inputs.get(key), value))
    return plan


def renew(job: Job, output: Path, plan: Plan) -> None:
    """Have the plan say what the files beside the items are asked for now, where it says otherwise.

    They are taken back before, so that a kill at any moment leaves either what was or something unfinished.
    """
    asked = {key: value for key, value in job.inputs().items() if key in job.beside}
    there = plan.inputs_on_disk() if asked else {}
    if any(there.get(key) != value for key, value in asked.items()):
        Remains(output).remove(job.remains())
        sync_folder(output / BOOKKEEPING)  # the record of what is gone must be gone before
        plan.renew_inputs(asked)


def left_alone(job: Job, plan: Plan) -> Iterator[str]:
    """What to say of places that the plan of an output names and nobody else: nothing is written there."""
    given = job.inputs()
    for key in job.elsewhere:
        if (there := plan.inputs.get(key)) and there != given[key]:
            yield (
                f"{key}: nothing is written in {there!r}, which only the plan names; the command that made the output "
                "writes there, since it names it"
            )


def job_of(kind: Callable[..., Job], plan: Plan) -> Job:
    """The job that made a plan, from what the plan says of it, which is data of others and may be anything.

    Where it wrote besides the output (:attr:`Job.elsewhere`) it does not write again.

    Raises
    ------
    UsageError
        The plan's words are not those of the job, or of another type; or its files would be somewhere else.
    """
    words = {**plan.options, **plan.inputs}
    try:
        plain = kind()
        job = kind(**{**words, **{name: getattr(plain, name) for name in plain.elsewhere}})
    except TypeError as error:
        raise UsageError(_another(plan, str(error))) from error
    for name, value in words.items():
        usual = getattr(plain, name)
        if not isinstance(value, _KINDS.get(type(usual), type(usual))):
            raise UsageError(_another(plan, f"{name} is {value!r}"))
    out = Path(os.path.abspath(plan.folder.parent.parent))  # noqa: PTH100 - resolve() follows links
    for name in job.remains():
        path = path_of(out, name)
        if out not in (path.parent, path.parent / f"{path.name}{BOOKKEEPING}"):
            raise UsageError(
                f"{plan.folder}: its plan has {path} for a file of this output; expected one in {out}, or one with "
                f"{BOOKKEEPING} behind its name to be that folder. If the folder was renamed, name it as before."
            )
    return job


def maker(job: Job, output: Path, plan: Plan) -> Job:
    """The job as it made the plan of an output; raises :class:`UsageError` where another one did."""
    if plan.job != job.name:
        raise UsageError(f"{output}: made by the job {plan.job}. Remove the folder yourself, or choose another.")
    return job_of(type(job), plan)


def _other_input(key: str, before: Any, now: Any) -> str:
    """How an input differs; most are paths, and empty where there is none."""
    is_now = f"no {key} now" if now in _NONE else f"{key} is {now} now"
    return f"{is_now}; the plan was made " + ("without one" if before in _NONE else f"with {before}")


def _another(plan: Plan, what: str) -> str:
    return (
        f"{plan.folder}: planned by another version ({what}). "
        "Use the gpupipe that made it, or remove the output folder yourself."
    )


def write_plan(job: Job, bookkeeping: Path, source: dict[str, Any]) -> PlanWriter:
    """Every item, written beside the plan's place and not yet moved there."""
    writer = PlanWriter(bookkeeping, job.name, job.options(), job.inputs(), source)
    try:
        job.write_items(writer)
    except BaseException:
        writer.discard()
        raise
    return writer


def remove_output(job: Job, output: Path) -> None:
    """Remove what the plan on disk says was made here, and the bookkeeping; nothing else.

    A kill at any moment leaves either an output that is as it was or one that is known to be unfinished: the ledgers
    go first, the plan, which says what there is to remove, goes last.
    """
    bookkeeping = output / BOOKKEEPING
    with ownership.alone(bookkeeping), closing(Plan(bookkeeping / "plan")) as plan:
        made = maker(job, output, plan)
        for shard in bookkeeping.glob("shard-*"):
            for path in [*shard.glob("ledger.db*"), shard / "complete"]:
                remove_tree(path)
            sync_folder(shard)
        place = Place(output, bookkeeping, bookkeeping, plan.count, made.shard_size)
        made.sink(place).remove(blob_names(made, plan))
        for name in [*made.remains(), FAILURES]:
            remove_file(path_of(output, name))
        with output_errors(bookkeeping):
            for path in [*bookkeeping.iterdir(), *bookkeeping.glob("shard-*/*")]:
                # A lock may be held by a run that is just starting: its file stays.
                if path.name not in ownership.LOCKS and path.name != "plan" and not path.name.startswith("shard-"):
                    remove_tree(path)
        # At once: half a plan is neither one that can be read nor a place for another.
        aside = bookkeeping / f"plan.{os.getpid()}.partial"
        with output_errors(aside):
            (bookkeeping / "plan").rename(aside)
        remove_tree(aside)
