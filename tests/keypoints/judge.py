"""Runs inside MediaPipe's own environment, as a program: images in, what MediaPipe finds in them out.

``python judge.py REQUEST.npz ANSWER.npz``. The request holds ``image-{i}`` (uint8 [H, W, 3]) and, for crops,
``crop-{j}`` (numbers: image, x, y, width, height, degrees, size, 1 if outside is black). The answer holds
``{run}/{i}/{part}`` for the runs

- ``fresh``: a graph made anew for each image, also observed inside: ``{part}-roi``, ``{part}-guess``;
- ``flush``: one graph in static mode, a blank image before each;
- ``leak``: the same without the blank images;
- ``noise-{k}``: as flush, one bit of one pixel of each image turned;
- ``video``, ``video-noise-{k}``: the frames ``clip-{c}-{t}`` in video mode, ``{c}-{t}`` for ``{i}``;

and ``crop-{j}``: the 8-bit crops by OpenCV.
"""

import os
import sys

os.environ["GLOG_minloglevel"] = "3"  # noqa: SIM112 (its name)

import cv2
import mediapipe
import numpy as np
from mediapipe.python.solution_base import PacketDataType, SolutionBase

NOISES = 3
PARTS = {
    "pose": "pose_landmarks",
    "left_hand": "left_hand_landmarks",
    "right_hand": "right_hand_landmarks",
    "face": "face_landmarks",
}
REGIONS = {
    "pose-roi": "poselandmarkcpu__pose_rect_from_detection",
    "left_hand-guess": "handlandmarksleftandrightcpu__left_hand_roi_from_pose",
    "right_hand-guess": "handlandmarksleftandrightcpu__right_hand_roi_from_pose",
    "left_hand-roi": "handlandmarksleftandrightcpu__left_hand_roi_from_recrop",
    "right_hand-roi": "handlandmarksleftandrightcpu__right_hand_roi_from_recrop",
    "face-guess": "facelandmarksfromposecpu__face_roi_from_pose",
    "face-roi": "facelandmarksfromposecpu__face_roi_from_detection",
}
SIDE_INPUTS = (
    *("enable_segmentation", "refine_face_landmarks", "smooth_landmarks", "smooth_segmentation"),
    "use_prev_landmarks",
)
_LANDMARK = "poselandmarkcpu__poselandmarkbyroicpu__tensorstoposelandmarksandsegmentation"
CONFIDENCES = (
    "poselandmarkcpu__posedetectioncpu__TensorsToDetectionsCalculator.min_score_thresh",
    f"{_LANDMARK}__ThresholdingCalculator.threshold",
)
GRAPH = "mediapipe/modules/holistic_landmark/holistic_landmark_cpu.binarypb"
Holistic = mediapipe.solutions.holistic.Holistic
BLANK = np.full((64, 64, 3), 255, np.uint8)


def main(request, answer):
    asked = dict(np.load(request))
    images = [asked[f"image-{i}"] for i in range(sum(name.startswith("image-") for name in asked))]
    found = {}
    for i, image in enumerate(images):
        found |= {f"fresh/{i}/{name}": value for name, value in observed(image).items()}
    with Holistic(static_image_mode=True) as graph:
        for i, image in enumerate(images):
            found |= {f"leak/{i}/{name}": value for name, value in points(graph.process(image)).items()}
        found |= flushed(graph, "flush", images)
        for k in range(NOISES):
            found |= flushed(graph, f"noise-{k}", [disturbed(image, k) for image in images])
    found |= video("video", asked, lambda image: image)
    for k in range(NOISES):
        found |= video(f"video-noise-{k}", asked, lambda image, k=k: disturbed(image, k))
    for name, numbers in asked.items():
        if name.startswith("crop-"):
            found[name] = cropped(images[int(numbers[0])], numbers[1:])
    np.savez(answer, **found)


def video(run, asked, change):
    clips, found = {}, {}
    for name in asked:
        if name.startswith("clip-"):
            clips.setdefault(name.split("-")[1], []).append(name)
    for names in clips.values():
        with Holistic() as graph:
            for name in names:
                result = points(graph.process(change(asked[name])))
                found |= {f"{run}/{name.removeprefix('clip-')}/{part}": value for part, value in result.items()}
    return found


def flushed(graph, run, images):
    found = {}
    for i, image in enumerate(images):
        graph.process(BLANK)
        found |= {f"{run}/{i}/{name}": value for name, value in points(graph.process(image)).items()}
    return found


def disturbed(image, k):
    other = image.copy()
    height, width = image.shape[:2]
    other[height * (k + 1) // (NOISES + 1), width // 2, k % 3] ^= 1
    return other


def points(result):
    found = {}
    for part, name in PARTS.items():
        landmarks = getattr(result, name)
        if landmarks is not None:
            found[part] = np.array([(point.x, point.y, point.z) for point in landmarks.landmark], np.float32)
            if part == "pose":
                found["visibility"] = np.array([point.visibility for point in landmarks.landmark], np.float32)
    return found


def observed(image):
    """One image through a new graph, its inner streams too.

    Through SolutionBase as Holistic itself does it, and not from the graph's file: Holistic loses options on the way
    that Python does not know, and the heatmap's kernel becomes 9 where the file says 7.
    """
    graph = SolutionBase(
        binary_graph_path=GRAPH,
        side_inputs={**dict.fromkeys(SIDE_INPUTS, False), "model_complexity": 1},
        calculator_params=dict.fromkeys(CONFIDENCES, 0.5),
        outputs=[*PARTS.values(), *REGIONS.values()],
        stream_type_hints=dict.fromkeys(REGIONS.values(), PacketDataType.PROTO),
    )
    with graph:
        result = graph.process({"image": image})
    found = points(result)
    for name, stream in REGIONS.items():
        box = getattr(result, stream)
        if box is not None:
            numbers = (box.x_center, box.y_center, box.width, box.height, box.rotation)
            found[name] = np.array(numbers, np.float32)
    return found


def cropped(image, numbers):
    x, y, width, height, degrees, size, black = (float(number) for number in numbers)
    corners = cv2.boxPoints(((x, y), (width, height), degrees))
    targets = np.array([[0, size], [0, 0], [size, 0], [size, size]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, targets)
    border = cv2.BORDER_CONSTANT if black else cv2.BORDER_REPLICATE
    return cv2.warpPerspective(image, matrix, (int(size), int(size)), flags=cv2.INTER_LINEAR, borderMode=border)


if __name__ == "__main__":
    main(*sys.argv[1:])
