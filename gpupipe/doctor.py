"""What this machine and this installation can do, and what is missing for the rest: ``gpupipe doctor``.

Whatever loads a driver's library or an optional package is asked in a process of its own.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from gpupipe import __version__
from gpupipe.cuda import devices
from gpupipe.cuda.devices import Gpu
from gpupipe.cuda.nvml import Nvml, NvmlError
from gpupipe.cuda.probe import ProbeError, ask, driver_version
from gpupipe.errors import MissingInputError, UsageError
from gpupipe.findings import Device, Driver, Findings, Kind, Machine, Package
from gpupipe.machine import free_memory_bytes, memory_bytes, usable_cores
from gpupipe.ops.keypoints.mediapipe_executor import MediaPipe
from gpupipe.ops.keypoints.models import FETCH, VERSION, read_models
from gpupipe.ops.keypoints.original import environment_folder

_LITERT = "ai_edge_litert.interpreter"  # what loads its library
_AT_ONCE = 4  # processes that import packages; each takes a core and some hundred MB


def examine(only: Sequence[str] = ()) -> Findings:
    """Look at the machine, the driver, its cards and the packages.

    Parameters
    ----------
    only : sequence of str
        Of :data:`ABILITIES`: look at no more than these need; default everything.

    Raises
    ------
    UsageError
        No such ability.
    """
    unknown = [name for name in only if name not in ABILITIES]
    if unknown:
        raise UsageError(f"--require {unknown[0]}: expected one of {', '.join(ABILITIES)}")
    needs = {need for name in only or ABILITIES for need in _NEEDS.get(name, (name,))}
    newest = driver_version()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        looking = [pool.submit(_package, wanted, newest) for wanted in _PACKAGES if wanted.module in needs]
        looking += [pool.submit(look) for name, look in _BESIDE.items() if name in needs]
        driver = _driver(newest)
        packages = tuple(one.result() for one in looking)
        gpus = [] if driver.problem else devices.usable_devices()
        cards = tuple(pool.map(lambda gpu: _device(gpu, driver, packages, needs), gpus))
    found = Findings(_machine(), driver, cards, packages, {}, ())
    abilities = {name: ABILITIES[name](found) for name in only or ABILITIES}
    return replace(found, abilities=abilities, advice=tuple(_advice(found, newest)))


@dataclass(frozen=True)
class _Wanted:
    """A package to look for: module, name, names on PyPI, what it is for, what installs it (None: our extra)."""

    module: str
    name: str
    names: tuple[str, ...]
    purpose: str
    install: str | None = None


_PACKAGES = (
    _Wanted("av", "av", ("av",), "decoding on CPU cores", "pip install --force-reinstall av"),
    _Wanted("cupy", "cupy", ("cupy-cuda13x", "cupy-cuda12x"), "GPU memory, kernels"),
    _Wanted("PyNvVideoCodec", "PyNvVideoCodec", ("PyNvVideoCodec",), "decoding with NVDEC"),
    _Wanted("nvidia.dali", "nvidia-dali", ("nvidia-dali-cuda130", "nvidia-dali-cuda120"), "pictures on the GPU"),
    _Wanted("pynvml", "nvidia-ml-py", ("nvidia-ml-py",), "counters of the GPU"),
    _Wanted("torch", "torch", ("torch",), "keypoints on a GPU", "pip install 'torch>=2.14'"),
    _Wanted("faiss", "faiss", ("faiss-gpu", "faiss-cpu"), "vector search", "pip install faiss-cpu"),
    _Wanted("kvikio", "kvikio", ("kvikio-cu13", "kvikio-cu12"), "from GPU to disk", "pip install kvikio-cu13"),
    _Wanted(
        _LITERT, "ai-edge-litert", ("ai-edge-litert",), "keypoints on CPU cores", "pip install 'gpupipe[keypoints]'"
    ),
)


def _machine() -> Machine:
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        gpupipe=__version__,
        cores=usable_cores(),
        cpus=os.cpu_count() or 1,
        memory_bytes=memory_bytes(),
        free_memory_bytes=free_memory_bytes(),
    )


def _driver(newest: tuple[int, int] | None) -> Driver:
    if newest is None:
        return Driver(None, None, devices.NO_DRIVER, devices.NO_DRIVER, devices.NO_DRIVER, ())
    version: str | None = None
    nvml: str | None = None
    lost: tuple[str, ...] = ()
    try:
        with Nvml() as library:
            version, lost = library.driver, library.lost
    except NvmlError as error:
        nvml = str(error)
    return Driver(version, f"{newest[0]}.{newest[1]}", devices.no_device(), devices.no_video(), nvml, lost)


def _package(wanted: _Wanted, newest: tuple[int, int] | None) -> Package:
    install = wanted.install or devices.install_command(newest or (13, 0))
    installed, version, note, problem = True, None, None, None
    try:
        answer = ask("package", wanted.module, *wanted.names)
        installed, version, note = answer["installed"], answer["version"], answer.get("note")
        if not installed:
            problem = f"not installed: {install}"
        elif wanted.module == "cupy":
            built = devices.cupy_cuda()
            if newest is not None and built is not None and built > newest[0]:
                problem = f"for CUDA {built}, and the driver takes {newest[0]}.{newest[1]}: {install}"
            else:
                note = f"compiles with NVRTC {'.'.join(map(str, ask('compiler')['nvrtc']))}"
    except ProbeError as error:
        step = wanted.install or "it needs the NVIDIA driver"
        step = f"{install}, or a newer driver" if newest is not None else step
        problem = f"does not work here ({error}): {step}"
    return Package(wanted.module, wanted.name, wanted.purpose, installed, version, note, problem)


def _networks() -> Package:
    """The network files of keypoints, each known by its SHA-256."""
    problem: str | None = None
    installed = True
    try:
        read_models()
    except MissingInputError:
        installed, problem = False, f"not there: {FETCH}"
    except UsageError as error:
        problem = str(error)
    except OSError as error:
        problem = f"cannot be read ({error}): {FETCH}"
    return Package("networks", "networks", "keypoints", installed, None, None, problem)


def _mediapipe() -> Package:
    """MediaPipe in an environment of its own; it is started, as a worker would start it."""
    problem: str | None = None
    installed = True
    try:
        MediaPipe("stateless").close()
    except MissingInputError:
        installed, problem = False, f"not installed: {FETCH} --environment"
    except UsageError as error:
        problem = str(error)
    version, note = VERSION if installed else None, f"in {environment_folder()}"
    return Package("mediapipe", "mediapipe", "the original", installed, version, note, problem)


_BESIDE: dict[str, Callable[[], Package]] = {"networks": _networks, "mediapipe": _mediapipe}
"""What is no package of this interpreter."""


def _device(gpu: Gpu, driver: Driver, packages: Sequence[Package], needs: set[str]) -> Device:
    # A name of its own per process: the index would mean another card where one is a slice.
    environment = {**os.environ, devices.VISIBLE: gpu.uuid}
    kinds: tuple[Kind, ...] = ()
    nvdec = driver.video or next((one.problem for one in packages if one.module == "PyNvVideoCodec"), None)
    if "decoders" in needs and nvdec is None:
        try:
            kinds = tuple(Kind(**kind) for kind in ask("decoders", "0", environment=environment)["kinds"])
        except ProbeError as error:
            nvdec = f"PyNvVideoCodec does not say what the card decodes: {error}"
    engines, nvjpeg = None, None
    if "jpeg" in needs:
        try:
            engines = ask("jpeg", "0", environment=environment)["engines"]
        except ProbeError as error:
            nvjpeg = str(error)
    return Device(gpu, tuple(devices.near_cores(gpu)), kinds, nvdec, engines, nvjpeg)


def _advice(found: Findings, newest: tuple[int, int] | None) -> list[str]:
    if newest is None:
        without = "no GPU is used: clips are decoded on CPU cores"
        idle = devices.cards_on_the_bus()
        return [
            f"{without}, though there is an NVIDIA card ({', '.join(idle)}): install its driver" if idle else without
        ]
    advice = list(found.driver.lost)
    advice += [reason for reason in (found.driver.problem, found.driver.video) if reason is not None]
    command = devices.install_command(newest)
    if any(command in (package.problem or "") for package in found.packages):
        advice.append(f"{command} brings what the driver (CUDA {found.driver.cuda}) can run")
    return advice


def _of_package(module: str) -> Callable[[Findings], str | None]:
    def reason(found: Findings) -> str | None:
        package = found.package(module)
        return package.problem and f"{package.name}: {package.problem}"

    return reason


def _cuda(found: Findings) -> str | None:
    return found.driver.problem or _of_package("cupy")(found)


def _nvdec(found: Findings) -> str | None:
    reason = _cuda(found) or found.driver.video or _of_package("PyNvVideoCodec")(found)
    if reason is not None or any(device.kinds for device in found.devices):
        return reason
    reasons = [device.nvdec for device in found.devices if device.nvdec is not None]
    return reasons[0] if reasons else "no card here has a video decoder (NVDEC): use --backend ffmpeg"


def _nvjpg(found: Findings) -> str | None:
    if found.driver.problem is not None or any(device.jpeg_engines for device in found.devices):
        return found.driver.problem
    reasons = [device.nvjpeg for device in found.devices if device.nvjpeg is not None]
    return reasons[0] if reasons else "no card here has a JPEG decoder (NVJPG); pictures are decoded without one"


def _keypoints(found: Findings) -> str | None:
    runs = _of_package(_LITERT)(found)
    torch = found.package("torch")
    if _cuda(found) is None and torch.problem is None and str(torch.note).startswith("for CUDA"):
        runs = None
    return "; ".join(filter(None, (runs, _of_package("networks")(found)))) or None


def _dali(found: Findings) -> str | None:
    return found.driver.problem or _of_package("nvidia.dali")(found)


ABILITIES: dict[str, Callable[[Findings], str | None]] = {
    "ffmpeg": _of_package("av"),
    "cuda": _cuda,
    "nvdec": _nvdec,
    "nvjpg": _nvjpg,
    "dali": _dali,
    "nvml": lambda found: found.driver.nvml,
    "torch": _of_package("torch"),
    "keypoints": _keypoints,
    "mediapipe": _of_package("mediapipe"),
    "faiss": _of_package("faiss"),
    "kvikio": _of_package("kvikio"),
}
"""What there may be, and why it is not."""

_NEEDS: dict[str, tuple[str, ...]] = {
    "ffmpeg": ("av",),
    "cuda": ("cupy",),
    "nvdec": ("cupy", "PyNvVideoCodec", "decoders"),
    "nvjpg": ("jpeg",),
    "dali": ("nvidia.dali",),
    "nvml": ("pynvml",),
    "keypoints": ("networks", _LITERT, "torch", "cupy"),
}
