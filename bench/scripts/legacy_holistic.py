"""MediaPipe's own Holistic, driven over pipes; runs in MediaPipe's environment, see bench/keypoints.py.

``python legacy_holistic.py IMAGES.npz``: each line read names a way to run, the line written back is the CPU seconds of
all threads for all images, and the peak of the process's memory in bytes.
"""

import json
import os
import resource
import sys
import time

os.environ["GLOG_minloglevel"] = "3"  # noqa: SIM112 (its name)

import mediapipe
import numpy as np

BLANK = np.full((64, 64, 3), 255, np.uint8)
Holistic = mediapipe.solutions.holistic.Holistic


def main(path):
    frames = np.load(path)
    images = [frames[name] for name in sorted(frames.files)]
    kept = Holistic(static_image_mode=True)

    def static():
        for image in images:
            kept.process(image)

    def flush():
        for image in images:
            kept.process(BLANK)
            kept.process(image)

    def fresh():
        for image in images:
            with Holistic(static_image_mode=True) as graph:
                graph.process(image)

    def video():
        with Holistic(static_image_mode=False) as graph:
            for image in images:
                graph.process(image)

    ways = {"static": static, "flush": flush, "fresh": fresh, "video": video}
    for line in sys.stdin:
        began = time.process_time()
        ways[line.strip()]()
        seconds = time.process_time() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"cpu_seconds": seconds, "peak_bytes": peak}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
