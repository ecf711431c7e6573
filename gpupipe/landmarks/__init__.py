"""Files of keypoints: what people read, write, merge, look at and train on, whoever made them."""
