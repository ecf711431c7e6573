"""MediaPipe's own Holistic, driven over pipes; runs in MediaPipe's environment, see bench/keypoints.py.

``python legacy_holistic.py PICTURES.npz``, with ``still-{number}`` and ``clip-{clip}-{frame}``: each line read names a
way to run, the line written back is the CPU milliseconds of all threads for one picture.
In video mode the clock leaves out each clip's new graph and first frame.
"""

import json
import os
import sys
import time

os.environ["GLOG_minloglevel"] = "3"  # noqa: SIM112 (its name)

import mediapipe
import numpy as np

BLANK = np.full((64, 64, 3), 255, np.uint8)
Holistic = mediapipe.solutions.holistic.Holistic


def main(path):
    frames = np.load(path)
    stills = [frames[name] for name in sorted(frames.files) if name.startswith("still-")]
    clips = {}
    for name in sorted(frames.files):
        if name.startswith("clip-"):
            clips.setdefault(name.split("-")[1], []).append(frames[name])
    kept = Holistic(static_image_mode=True)

    def static(image):
        kept.process(image)

    def flush(image):
        kept.process(BLANK)
        kept.process(image)

    def fresh(image):
        with Holistic(static_image_mode=True) as graph:
            graph.process(image)

    def video():
        seconds, count = 0.0, 0
        for images in clips.values():
            with Holistic() as graph:
                graph.process(images[0])
                began = time.process_time()
                for image in images[1:]:
                    graph.process(image)
                seconds, count = seconds + time.process_time() - began, count + len(images) - 1
        return seconds / count

    def each(way):
        began = time.process_time()
        for image in stills:
            way(image)
        return (time.process_time() - began) / len(stills)

    ways = {"static": static, "flush": flush, "fresh": fresh}
    for line in sys.stdin:
        name = line.strip()
        seconds = video() if name == "video" else each(ways[name])
        print(json.dumps({"cpu_ms": seconds * 1e3}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
