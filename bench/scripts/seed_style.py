"""The clips job as a plain multiprocessing script: OpenCV, one seek a frame, pickles.

Command: ``python -m bench.scripts.seed_style PAIRS CLIPS_DIR OUT WORKERS``
"""

import json
import pickle
import sys
from multiprocessing import Pool
from pathlib import Path

import cv2
import numpy as np

from gpupipe.ops.text import clip_tokenizer

NUM_FRAMES, HEIGHT, WIDTH = 16, 160, 256


def read_frames(path):
    capture = cv2.VideoCapture(path)
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    frames = []
    for number in np.linspace(0, total - 1, NUM_FRAMES, dtype=int):
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(number))
        ok, frame = capture.read()
        if ok:
            frame = cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    capture.release()
    while frames and len(frames) < NUM_FRAMES:
        frames.append(frames[-1])
    return np.stack(frames)


def process(task):
    number, pair, clips_dir, out = task
    try:
        frames = read_frames(str(Path(clips_dir, Path(pair["clip_path"]).name)))
    except Exception as error:
        print(f"skipped {pair['vid']}: {error}", file=sys.stderr)
        return
    write(out, number, pair, frames, clip_tokenizer().encode(pair["transcript"]))


def write(out, number, pair, frames, tokens):
    folder = Path(out, f"sample_{number:06d}_{pair['vid']}")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "video_input.pkl").open("wb") as file:
        pickle.dump(frames, file)
    with (folder / "text_input.pkl").open("wb") as file:
        pickle.dump({"tokens": tokens}, file)
    with (folder / "size.json").open("w") as file:
        json.dump([0.5] * NUM_FRAMES, file)


def quiet():
    cv2.setNumThreads(1)


def main():
    pairs_json, clips_dir, out, workers = sys.argv[1:5]
    pairs = json.loads(Path(pairs_json).read_text())
    tasks = [(number, pair, clips_dir, out) for number, pair in enumerate(pairs)]
    with Pool(int(workers), quiet) as pool:
        for _ in pool.imap_unordered(process, tasks):
            pass


if __name__ == "__main__":
    main()
