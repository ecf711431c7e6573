"""``--pose-dir`` of a keypoints run: its files are there at the end, also where nothing else was left to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from gpupipe import launch
from gpupipe.jobs.keypoints import KeypointsJob
from gpupipe.landmarks.clip import DONE
from gpupipe.landmarks.dataset import open_landmarks
from gpupipe.landmarks.pose_file import pose_path, write_pose_files
from gpupipe.landmarks.shard_folder import INDEX
from gpupipe.launch import Run
from gpupipe.plan import BOOKKEEPING, Plan
from gpupipe.progress import Reporter
from gpupipe.summary import Summary


def run(job: KeypointsJob, how: Run, reporter: Reporter) -> Summary:
    """Run the job, see :func:`gpupipe.launch.run`; a dataset that was complete before gets the files it lacks."""
    summary = launch.run(job, how, reporter)
    worked = summary.done + summary.failed - summary.earlier
    if job.pose_dir and summary.complete and not worked and _wanted(job, how.output):
        with open_landmarks(how.output) as landmarks:
            count = write_pose_files(landmarks, Path(job.pose_dir), job.fps or None)
        reporter.notice(f"{count} .pose files written in {job.pose_dir}")
    return summary


def _wanted(job: KeypointsJob, output: Path) -> bool:
    """Whether files are missing, or those that are there may be of another dataset, or of it as it was before."""
    with closing(Plan(output / BOOKKEEPING / "plan")) as plan:
        if plan.inputs.get("pose_dir") != job.pose_dir:
            return True
    since = (output / INDEX).stat().st_mtime_ns  # written before they are
    return not all(_stands(pose_path(Path(job.pose_dir), split, video), since) for split, video in _videos(output))


def _stands(path: Path, since: int) -> bool:
    try:
        return path.stat().st_mtime_ns >= since
    except (FileNotFoundError, NotADirectoryError):
        return False


def _videos(output: Path) -> Iterator[tuple[str, str]]:
    """Split and video of those with a picture that could be read; a video may come more than once."""
    import pyarrow.parquet as pq

    columns = ["split", "video_id", "status"]
    with (output / INDEX).open("rb") as file, pq.ParquetFile(file) as index:
        for batch in index.iter_batches(columns=columns):
            rows = zip(*(batch.column(name).to_pylist() for name in columns), strict=True)
            yield from dict.fromkeys((split, video) for split, video, status in rows if status == DONE)
