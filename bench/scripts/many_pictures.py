"""Plans the pictures of a large tree, then resumes with one of them left; prints seconds and peak memory as JSON.

Command: ``python -m bench.scripts.many_pictures PICTURES FOLDER``. The tree is made of hard links; what the pictures
before the last gave are shards of zeros, so that the index and the pickle at the end are made of all of them.
"""

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from bench.scripts.many_items import Probe, peak_mib, resumed, settled
from gpupipe import planning
from gpupipe.fingerprint import fingerprint
from gpupipe.jobs.keypoint_plan import dataset_folder, planned
from gpupipe.jobs.keypoint_work import PICTURE_ROWS
from gpupipe.jobs.keypoints import KeypointsJob
from gpupipe.plan import BOOKKEEPING
from gpupipe.sinks.npy import npy_header

FRAMES = 136  # of a video, as in PHOENIX
_TIME_NS = 1_700_000_000 * 10**9


def main() -> None:
    pictures, folder = int(sys.argv[1]), Path(sys.argv[2])
    make_tree(folder / "tree", pictures)
    out, pickle = dataset_folder(folder / "all.pkl")
    probe = Probe()
    began = time.perf_counter()
    job = planned(KeypointsJob(dataset_path=str(folder / "tree"), pickle=pickle), out, "ffmpeg")
    job = replace(job, executor="cpu")
    (out / BOOKKEEPING).mkdir(parents=True)
    plan = planning.make_plan(job, out / BOOKKEEPING, planning.source_facts(job.source()), probe)
    found = {"items": plan.count, "plan_seconds": time.perf_counter() - began, "plan_peak_mib": peak_mib()}
    settled(out, plan, plan.count - 1, fingerprint(job.input_file(plan.item(0))))
    make_shards(out, plan.count, job.shard_size)
    print(json.dumps(found | resumed(planned(job, out, "ffmpeg"), out, probe)))


def make_tree(tree: Path, pictures: int) -> None:
    """A split tree with so many links to small pictures."""
    for video, start in enumerate(range(0, pictures, FRAMES)):
        folder = tree / ("train", "dev", "test")[video % 40 if video % 40 < 3 else 0] / f"video{video:06d}"
        folder.mkdir(parents=True)
        first = folder / "images0001.png"
        Image.fromarray(np.zeros((260, 210, 3), np.uint8)).save(first)
        os.utime(first, ns=(_TIME_NS, _TIME_NS))
        for number in range(1, min(FRAMES, pictures - start)):
            (folder / f"images{number + 1:04d}.png").hardlink_to(first)


def make_shards(out: Path, count: int, shard_size: int) -> None:
    """Whole output shards, all zeros but for the size of the pictures; they take no room."""
    for shard, start in enumerate(range(0, count, shard_size)):
        rows = min(shard_size, count - start)
        last = start + rows == count
        for spec in PICTURE_ROWS:
            header = npy_header((rows, *spec.shape), spec.dtype)
            path = out / f"{spec.name}-{shard:05d}.npy"
            with path.with_name(f"{path.name}.partial" if last else path.name).open("wb") as file:
                file.write(header)
                if spec.name == "shape":
                    file.write(np.tile(np.array([260, 210], "<i4"), (rows, 1)).tobytes())
                file.truncate(len(header) + rows * spec.nbytes)


if __name__ == "__main__":
    main()
