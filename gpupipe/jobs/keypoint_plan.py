"""A keypoints job as it is planned: what was asked for, and what decides the numbers on this machine."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from gpupipe import plan as plans
from gpupipe.cuda import devices
from gpupipe.decode.images import open_images
from gpupipe.errors import MissingInputError, UsageError
from gpupipe.jobs.annotations import annotation_files, annotations_digest
from gpupipe.jobs.keypoint_sources import clips
from gpupipe.jobs.keypoints import KeypointsJob
from gpupipe.landmarks.pickle_file import RESERVED
from gpupipe.ops.keypoints import executors
from gpupipe.plan import BOOKKEEPING, Plan
from gpupipe.planning import check_place

PICKLES = (".pkl", ".pickle")
_DEVICES = ("cpu", "cuda")


def dataset_folder(output: Path) -> tuple[Path, str]:
    """Where the dataset of ``--output-path`` lies, and the name of the pickle beside it; empty for none.

    The folder beside a pickle, by its own name, is that of the pickle too: nothing works the one without the other.
    """
    name = output.name.removesuffix(BOOKKEEPING)
    if Path(name).suffix.lower() in PICKLES:
        return output.with_name(f"{name}{BOOKKEEPING}"), name
    return output, ""


def planned(job: KeypointsJob, output: Path, backend: str, overwrite: bool = False) -> KeypointsJob:
    """Complete a job: which executor and device run it, what is installed, what the source holds.

    A dataset that is there is continued with the executor that began it, where the choice is left open.

    Parameters
    ----------
    job : KeypointsJob
        As asked for; `executor` may be ``"auto"``, `annotations_path` may be empty.
    output : Path
        The dataset's folder.
    backend : str
        ``"auto"``, ``"ffmpeg"`` (CPU cores) or ``"nvdec"`` (GPUs).
    overwrite : bool
        What is there will be removed, and so decides nothing.

    Raises
    ------
    UsageError
        What is asked for is not installed, the source is none, a folder has the pickle's name, or the ``.pose`` files'
        folder cannot be made.
    """
    if job.pickle and (beside := output.with_name(job.pickle)).is_dir():
        raise UsageError(f"{beside}: is a folder; expected the name of a file. Choose another output")
    if job.pose_dir:
        check_place(Path(job.pose_dir))
    executor, device = _executor(job.executor, None if overwrite else output, backend)
    source = Path(job.dataset_path)
    found = clips(source, job.splits or None, job.max_samples_per_split)
    if job.pickle and (taken := set(RESERVED) & set(found.splits)):
        raise UsageError(f"{source}: a split is called {min(taken)}, which is a key of the pickle. Rename the folder")
    items = "pictures" if found.pictures and job.mode == "stateless" else "clips"
    said = annotation_files(source, job.annotations_path, found.splits)
    try:
        networks = executors.identity(executor, device, job.precision)
    except MissingInputError as error:
        raise UsageError(str(error)) from error
    with open_images("cpu") as decoder:
        pictures = decoder.identity() if found.pictures else ""
    return replace(
        job, executor=executor, device=device, items=items, networks=networks, image_decoder=pictures,
        annotations=annotations_digest(said),
    )  # fmt: skip


def _executor(asked: str, there: Path | None, backend: str) -> tuple[str, str]:
    """Executor and device, as asked, or those of the dataset that is `there`."""
    if asked == "auto" and there is not None and plans.exists(there / BOOKKEEPING):
        with closing(Plan(there / BOOKKEEPING / "plan")) as plan:
            begun, device = plan.options.get("executor"), plan.options.get("device")
        if isinstance(begun, str) and device in {"auto": _DEVICES, "ffmpeg": ("cpu",), "nvdec": ("cuda",)}[backend]:
            return begun, str(device)
    missing = "--backend ffmpeg" if backend == "ffmpeg" else devices.missing()
    if missing is None and find_spec("torch") is None:
        missing = "torch is not installed: pip install gpupipe[cu13]"
    executor = executors.choose(asked, missing is None)
    if backend == "nvdec" and (missing is not None or executor != "torch"):
        raise UsageError(f"--backend nvdec: {missing or f'--executor {executor} has no use for a GPU'}")
    return executor, "cuda" if executor == "torch" and missing is None else "cpu"
