"""Build of the one native extension, from csrc/. Everything else is in pyproject.toml."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_py import build_py

PIXELS = ("resize", "kernels", "plane_simd")
POINTS = ("keypoints_crop", "keypoints_points")
SCANNERS = (
    "scanner", "nal", "h264_sets", "h264", "hevc_sets", "hevc", "vvc_sets", "vvc_slice", "vvc", "av1", "vpx", "mpeg",
    "intra",
)  # fmt: skip

# Compiled where a GPU is, at first use: gpupipe/cuda/kernel.py, gpupipe/ops/keypoints/batched/card_album.py.
DEVICE = ("frames.cu", "plane.h", "keypoints_crop.cu", "keypoints_warp.h")


class BuildPy(build_py):
    """Lays the kernels' sources into gpupipe/cuda; an editable install reads them in csrc/."""

    def run(self) -> None:
        """Lay them into a wheel."""
        super().run()
        if not self.editable_mode:
            for name in DEVICE:
                self.copy_file(f"csrc/{name}", str(Path(self.build_lib, "gpupipe", "cuda", name)))


# No -march flag: one wheel runs on every machine of its kind; the kernels dispatch at run time.
# No -ffast-math: there is no floating point in the pixel path, and there shall be none. That of the keypoints follows
# a definition to the bit: no multiplication is fused with an addition.
native = Extension(
    "gpupipe._native",
    sources=["csrc/_native.pyx", *(f"csrc/{name}.cpp" for name in (*PIXELS, *POINTS, *SCANNERS))],
    depends=sorted(map(str, Path("csrc").glob("*.h"))),
    include_dirs=["csrc"],
    language="c++",
    extra_compile_args=["-std=c++17", "-O3", "-fvisibility=hidden", "-ffp-contract=off", "-Wall"],
)

setup(cmdclass={"build_py": BuildPy}, ext_modules=cythonize([native], compiler_directives={"language_level": 3}))
