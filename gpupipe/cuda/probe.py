"""One question to the driver or to an optional package, asked in a process of its own.

A driver's library that crashes or hangs costs an answer then, and no CUDA context stays. The child is this module's
:func:`main`: its words are the question, the last line of its output is the answer, as JSON.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 120.0  # torch from a cold network disk takes most of a minute

CODECS = ("h264", "hevc", "vp8", "vp9", "av1")
CHROMAS = ("420", "422", "444")
DEPTHS = (8, 10, 12)

_NVJPEG_STATUS = {1: "not initialized", 5: "allocator failure", 6: "execution failed", 7: "architecture mismatch"}
_VIDEO_LIBRARIES = ("libnvcuvid.so.1", "libnvidia-encode.so.1")


class ProbeError(RuntimeError):
    """The question has no answer here; says why, in one line."""


def ask(*words: str, environment: Mapping[str, str] | None = None, timeout: float = TIMEOUT_SECONDS) -> dict[str, Any]:
    """Ask a question.

    Parameters
    ----------
    words : str
        Its name, a function of this module, and what that takes.
    environment : mapping, optional
        Of the child; default this process's.
    timeout : float
        Seconds.

    Returns
    -------
    dict
        JSON values.

    Raises
    ------
    ProbeError
        The first line of what was raised, or how the child ended.
    """
    env = dict(os.environ if environment is None else environment)
    home = str(Path(__file__).parents[2])
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), home]))
    try:
        child = subprocess.run(
            [sys.executable, "-m", "gpupipe.cuda.probe", *words],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ProbeError(f"no answer within {timeout:.0f} s") from error
    lines = child.stdout.decode(errors="replace").splitlines()
    if child.returncode < 0:
        number = -child.returncode
        name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
        raise ProbeError(f"the process that asked was ended by {name}")
    if child.returncode or not lines:
        said = child.stderr.decode(errors="replace").strip().splitlines()
        raise ProbeError(f"the process that asked exited with {child.returncode}: {said[-1] if said else 'no word'}")
    answer: dict[str, Any] = json.loads(lines[-1])
    if "problem" in answer:
        raise ProbeError(answer["problem"])
    return answer


def main(words: list[str]) -> int:
    """Answer one question."""
    # Whatever a library prints while it loads goes to standard error: the answer alone is on standard output.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    question = _QUESTIONS[words[0]]
    try:
        answer = question(*words[1:])
    except (Exception, SystemExit) as error:  # whatever it is, it is the answer
        answer = {"problem": first_line(error)}
    print(json.dumps(answer), file=answers, flush=True)
    # Destructors of drivers' libraries are no part of the question, and some crash without a card.
    os._exit(0)


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if isinstance(error, ProbeError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def driver_version() -> tuple[int, int] | None:
    """The newest CUDA that the driver takes; None where no driver can be loaded. Starts nothing."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(number))
    return number.value // 1000, number.value % 1000 // 10


def _driver() -> dict[str, Any]:
    """The cards as CUDA counts them here, CUDA_VISIBLE_DEVICES and all; no context is made."""
    cuda = _Cuda()
    count = ctypes.c_int()
    cuda.call("cuDeviceGetCount", ctypes.byref(count))
    return {"devices": [_device(cuda, number) for number in range(count.value)]}


def _device(cuda: _Cuda, number: int) -> dict[str, Any]:
    device, nbytes = ctypes.c_int(), ctypes.c_size_t()
    name, bus_id, uuid = (ctypes.create_string_buffer(size) for size in (256, 32, 16))
    major, minor = ctypes.c_int(), ctypes.c_int()
    cuda.call("cuDeviceGet", ctypes.byref(device), number)
    cuda.call("cuDeviceGetName", name, 256, device)
    cuda.call("cuDeviceGetUuid_v2", uuid, device)
    cuda.call("cuDeviceGetPCIBusId", bus_id, 32, device)
    cuda.call("cuDeviceTotalMem_v2", ctypes.byref(nbytes), device)
    cuda.call("cuDeviceGetAttribute", ctypes.byref(major), 75, device)  # compute capability
    cuda.call("cuDeviceGetAttribute", ctypes.byref(minor), 76, device)
    digits = uuid.raw.hex()
    cuts = (0, 8, 12, 16, 20, 32)
    parts = [digits[begin:end] for begin, end in pairwise(cuts)]
    text = name.value.decode(errors="replace")
    return {
        "uuid": f"{'MIG' if ' MIG ' in text else 'GPU'}-{'-'.join(parts)}",
        "name": text,
        "memory_bytes": nbytes.value,
        "compute_capability": [major.value, minor.value],
        "bus_id": bus_id.value.decode(),
    }


class _Cuda:
    """The driver, started."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            raise ProbeError(f"{name}: {self._name(code)}")

    def _name(self, code: int) -> str:
        text = ctypes.c_char_p()
        if self._library.cuGetErrorName(code, ctypes.byref(text)) or text.value is None:
            return f"CUDA error {code}"
        return text.value.decode()

    def keep(self, number: int) -> None:
        """Make the card's primary context, and keep it to the end of the process."""
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuDeviceGet", ctypes.byref(device), number)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)


def _video() -> dict[str, Any]:
    """Whether the driver's video libraries are there; PyNvVideoCodec loads both, to decode alone too."""
    for name in _VIDEO_LIBRARIES:
        ctypes.CDLL(name)
    return {}


def _compiler() -> dict[str, Any]:
    """The version of NVRTC that CuPy compiles kernels with."""
    from cupy.cuda import nvrtc

    return {"nvrtc": list(nvrtc.getVersion())}


def _decoders(number: str) -> dict[str, Any]:
    """What a card decodes, kind by kind; of a kind that it does not decode there is nothing."""
    # Each question makes a context and destroys it, unless there is one: 45 of them are quick that way.
    _Cuda().keep(int(number))
    codec = importlib.import_module("PyNvVideoCodec")
    kinds, problems = [], []
    for name in CODECS:
        for chroma in CHROMAS:
            for depth in DEPTHS:
                try:
                    caps = codec.GetDecoderCaps(
                        gpuid=int(number),
                        codec=getattr(codec.cudaVideoCodec, name.upper()),
                        chromaformat=codec.cudaVideoChromaFormat.__members__[chroma],
                        bitdepth=depth,
                    )
                except Exception as error:  # of every version's own class
                    problems.append(first_line(error))
                    continue
                engines, height, width = (int(caps[key]) for key in ("num_decoder_engines", "height_max", "width_max"))
                if caps.get("supported", True) and engines and height and width:
                    kinds.append(
                        {
                            "codec": name,
                            "chroma": chroma,
                            "depth": depth,
                            "engines": engines,
                            "max_height": height,
                            "max_width": width,
                        }
                    )
    if not kinds and problems:
        raise ProbeError(problems[0])
    return {"kinds": kinds}


def _jpeg(number: str) -> dict[str, Any]:
    """Hardware JPEG engines of a card; nvJPEG alone knows."""
    _Cuda().keep(int(number))
    library = _nvjpeg()
    handle, engines, cores = ctypes.c_void_p(), ctypes.c_uint(), ctypes.c_uint()
    code = library.nvjpegCreateSimple(ctypes.byref(handle))
    code = code or library.nvjpegGetHardwareDecoderInfo(handle, ctypes.byref(engines), ctypes.byref(cores))
    if code:
        raise ProbeError(f"nvJPEG does not start on it: {_NVJPEG_STATUS.get(code, code)}")
    return {"engines": engines.value, "cores_per_engine": cores.value}


def _nvjpeg() -> ctypes.CDLL:
    for name in ("libnvjpeg.so.13", "libnvjpeg.so.12"):
        places = sorted(Path(name) for name in _files_named(name)) or [Path(name)]
        for place in places:
            try:
                return ctypes.CDLL(str(place))
            except OSError:
                continue
    raise ProbeError("libnvjpeg is not there; it comes with nvidia-dali-cuda130 or nvidia-dali-cuda120")


def _files_named(name: str) -> list[str]:
    # The packages nvidia-nvjpeg (CUDA 13) and nvidia-nvjpeg-cu12 put it below the folder nvidia/ of the environment.
    return [str(path) for folder in sys.path if folder for path in Path(folder, "nvidia").glob(f"*/lib/{name}")]


def _package(module: str, *distributions: str) -> dict[str, Any]:
    """Import a package; its version, and what else it says of itself."""
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            return {"version": None, "installed": False}
        raise
    return {
        "version": _version(distributions) or str(getattr(loaded, "__version__", "")) or None,
        "installed": True,
        "note": _NOTES[module](loaded) if module in _NOTES else None,
    }


def _version(distributions: tuple[str, ...]) -> str | None:
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _torch_note(torch: Any) -> str:
    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    return f"{built}, sees {torch.cuda.device_count()} devices"


def _av_note(av: Any) -> str:
    return f"FFmpeg {av.ffmpeg_version_info}"


_NOTES: dict[str, Callable[[Any], str]] = {"torch": _torch_note, "av": _av_note}
_QUESTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "driver": _driver,
    "video": _video,
    "compiler": _compiler,
    "decoders": _decoders,
    "jpeg": _jpeg,
    "package": _package,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
