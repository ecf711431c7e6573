"""Build of the one native extension, from csrc/. Everything else is in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup

# No -march flag: one wheel runs on every machine of its kind; the kernels dispatch at run time.
# No -ffast-math: there is no floating point in the pixel path, and there shall be none.
native = Extension(
    "gpupipe._native",
    sources=["csrc/_native.pyx", "csrc/resize.cpp", "csrc/kernels.cpp", "csrc/plane_simd.cpp"],
    depends=["csrc/plane.h", "csrc/axis.h", "csrc/kernels.h", "csrc/resize.h"],
    include_dirs=["csrc"],
    language="c++",
    extra_compile_args=["-std=c++17", "-O3", "-fvisibility=hidden", "-Wall"],
)

setup(ext_modules=cythonize([native], compiler_directives={"language_level": 3}))
