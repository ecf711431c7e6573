"""The Holistic graph for many images at once, in torch: on the CPU and on a GPU. :mod:`.executor` is the door."""
