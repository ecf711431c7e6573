"""An NVIDIA driver without a card: a few functions of each library that a driver brings, and of the packages on top.

Built by the compiler that builds the package. A process on such a machine has the variables of :func:`environment`;
what its libraries do is said in ``FAKE_...`` (see the sources), so each test has the machine it needs.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
LIBRARIES = {
    "libcuda.so.1": "cuda.cpp",
    "libnvidia-ml.so.1": "nvml.cpp",
    "libnvjpeg.so.13": "nvjpeg.cpp",
    "libnvcuvid.so.1": "video.cpp",
    "libnvidia-encode.so.1": "video.cpp",
}
UUIDS = tuple(f"GPU-{n * 8}-{n * 4}-{n * 4}-{n * 4}-{n * 12}" for n in "0123")


def build(folder: Path, leave_out: tuple[str, ...] = ()) -> Path:
    """The libraries, in `folder`."""
    compiler = shlex.split(os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++")[0]
    for name, source in LIBRARIES.items():
        if name not in leave_out:
            command = [compiler, "-shared", "-fPIC", "-std=c++17", "-o", folder / name, HERE / source]
            subprocess.run(command, check=True)
    return folder


def environment(folder: Path, packages: bool = True, **words: str) -> dict[str, str]:
    """Of a process on that machine, with CuPy and PyNvVideoCodec if `packages`; `words` are variables."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("CUDA_", "NVIDIA_", "FAKE_"))}
    paths = [*([str(HERE / "site")] if packages else []), str(ROOT), os.environ.get("PYTHONPATH", "")]
    more = {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return {**kept, **more, **words}
