"""Body keypoints: MediaPipe's models and its Holistic graph, without MediaPipe."""
