"""The cards that a run may use: why none, which ones, which cores are near, who asked for which.

Nothing here makes a CUDA context or loads more than ``libcuda`` into this process; the rest is asked in another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from gpupipe.cuda.nvml import GpuFacts, Nvml, NvmlError, pci_address
from gpupipe.cuda.probe import ProbeError, ask, driver_version
from gpupipe.errors import UsageError

VISIBLE = "CUDA_VISIBLE_DEVICES"
_CAPABILITIES = "NVIDIA_DRIVER_CAPABILITIES"
_NEEDED_CAPABILITIES = "compute,utility,video"

NO_DRIVER = (
    "no NVIDIA driver: libcuda.so.1 cannot be loaded. Install the driver; in a container, start it with the cards "
    f"(docker run --gpus all) and {_CAPABILITIES}={_NEEDED_CAPABILITIES}"
)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card, or a MIG slice, that this process may use.

    Attributes
    ----------
    index : int
        Among those that this process sees, as ``--gpu-ids`` counts them.
    uuid : str
        ``"GPU-..."`` or ``"MIG-..."``: what CUDA_VISIBLE_DEVICES of its worker is set to.
    name : str
    memory_bytes : int or None
    compute_capability : (int, int) or None
    bus_id : str or None
        PCI address as sysfs writes it; None where nobody tells.
    """

    index: int
    uuid: str
    name: str
    memory_bytes: int | None
    compute_capability: tuple[int, int] | None
    bus_id: str | None


def missing() -> str | None:
    """Why no GPU can decode here, with the next step; None if one can.

    Where there is no driver this costs next to nothing; where there is one, the packages are imported in a process of
    their own (a second or two).
    """
    newest = driver_version()
    if newest is None:
        return NO_DRIVER
    for module, name in (("cupy", "CuPy"), ("PyNvVideoCodec", "PyNvVideoCodec")):
        if find_spec(module) is None:
            return f"{name} is not installed: {install_command(newest)}"
    built = cupy_cuda()
    if built is not None and built > newest[0]:
        return (
            f"CuPy is built for CUDA {built}, and the driver takes {newest[0]}.{newest[1]}: {install_command(newest)}"
        )
    questions: tuple[Callable[[], str | None], ...] = (
        no_device,
        no_video,
        lambda: no_package("cupy", newest),
        lambda: no_package("PyNvVideoCodec", newest),
    )
    with ThreadPoolExecutor(len(questions)) as pool:  # a process each, which waits for the driver most of its time
        asked = [pool.submit(question) for question in questions]
        return next((reason for one in asked if (reason := one.result()) is not None), None)


def usable_devices(environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """The cards that this process sees, CUDA_VISIBLE_DEVICES heeded; none where :func:`missing` says why.

    A card that is cut into MIG slices counts as its slices, each a device; MIG names in CUDA_VISIBLE_DEVICES stay as
    they are written.
    """
    visible = environment.get(VISIBLE)
    if visible is not None and "MIG-" in visible:
        known = {facts.uuid: facts for facts in _slices()}
        words = [word.strip() for word in visible.split(",") if word.strip()]
        return [_slice(index, word, known.get(word)) for index, word in enumerate(words)]
    if driver_version() is None:
        return []
    try:
        answer = ask("driver", environment=environment)
    except ProbeError:
        return []
    found = [
        Gpu(
            index=index,
            uuid=one["uuid"],
            name=one["name"],
            memory_bytes=one["memory_bytes"],
            compute_capability=(one["compute_capability"][0], one["compute_capability"][1]),
            bus_id=pci_address(one["bus_id"]),
        )
        for index, one in enumerate(answer["devices"])
    ]
    if visible is None and any(gpu.uuid.startswith("MIG-") for gpu in found):
        # Of all slices CUDA shows one a process, so the others are looked for where they are counted.
        whole = [gpu for gpu in found if not gpu.uuid.startswith("MIG-")]
        slices = [_slice(0, facts.uuid, facts) for facts in _slices()]
        found = [
            Gpu(index, one.uuid, one.name, one.memory_bytes, one.compute_capability, one.bus_id)
            for index, one in enumerate([*whole, *(slices or found[len(whole) :])])
        ]
    return found


def near_cores(device: Gpu, root: Path = Path("/")) -> list[int]:
    """CPUs of the card's NUMA node that this process may run on; all that it may where none of them is near."""
    allowed = os.sched_getaffinity(0)
    if device.bus_id is None:
        return sorted(allowed)
    try:
        text = (root / "sys/bus/pci/devices" / device.bus_id / "local_cpulist").read_text()
    except OSError:
        return sorted(allowed)  # a virtual machine shows no such file
    return sorted(allowed & _cpus(text)) or sorted(allowed)


def select(gpus: str | int | None, gpu_ids: Sequence[str] | None, devices: Sequence[Gpu]) -> list[Gpu]:
    """The cards that were asked for; one that is named several times comes several times.

    Parameters
    ----------
    gpus : "all", int or None
        How many, the first ones; None for all.
    gpu_ids : sequence of str or None
        Index, UUID, or the beginning of one UUID only; several in a word with commas between.
    devices : sequence of Gpu
        Those that there are.

    Raises
    ------
    UsageError
        Both, an unknown one, more than there are.
    """
    if gpus is not None and gpu_ids is not None:
        raise UsageError(f"--gpus {gpus} and --gpu-ids {' '.join(gpu_ids)}: choose one")
    if gpu_ids is not None:
        words = [word for words in gpu_ids for word in words.replace(",", " ").split()]
        if not words:
            raise UsageError("--gpu-ids: expected at least one")
        return [_named(word, devices) for word in words]
    if gpus is None or gpus == "all":
        if not devices:
            raise UsageError(f"--gpus all: {_seen(devices)}")
        return list(devices)
    if isinstance(gpus, str) or gpus < 1:
        raise UsageError(f"--gpus {gpus}: expected all, or a number from 1")
    if gpus > len(devices):
        raise UsageError(f"--gpus {gpus}: {_seen(devices)}")
    return list(devices[:gpus])


def install_command(newest: tuple[int, int]) -> str:
    """What installs the packages for a driver that takes CUDA up to `newest`."""
    return f"pip install 'gpupipe[cu{13 if newest[0] >= 13 else 12}]'"


def cupy_cuda() -> int | None:
    """The CUDA version (12, 13) that the installed CuPy is built for; None if none is, or its name does not say."""
    for number in (13, 12, 11):
        try:
            metadata.version(f"cupy-cuda{number}x")
        except metadata.PackageNotFoundError:
            continue
        return number
    return None


def no_device() -> str | None:
    """Why CUDA shows no card, with the next step; None if it shows one."""
    try:
        devices = ask("driver")["devices"]
    except ProbeError as error:
        if "CUDA_ERROR_NO_DEVICE" not in str(error):
            return f"the NVIDIA driver does not start ({error}): see nvidia-smi; restart after a driver's update"
        devices = []
    if devices:
        return None
    visible = os.environ.get(VISIBLE)
    if visible is not None:
        return f"{VISIBLE}={visible!r} leaves no card: name one that nvidia-smi -L lists, or unset it"
    return "the NVIDIA driver sees no card: see nvidia-smi -L; in a container, start it with docker run --gpus all"


def no_video() -> str | None:
    """Why the driver's video libraries do not load, with the next step; None if they do."""
    try:
        ask("video")
    except ProbeError as error:
        given = os.environ.get(_CAPABILITIES)
        if given is not None and not {"video", "all"} & {word.strip() for word in given.split(",")}:
            return (
                f"{_CAPABILITIES}={given} leaves out the driver's video libraries: start the container with "
                f"{_CAPABILITIES}={_NEEDED_CAPABILITIES}"
            )
        return (
            f"the driver's video libraries do not load ({error}): install them (libnvidia-decode and "
            f"libnvidia-encode of the driver's version); in a container, start it with {_CAPABILITIES}="
            f"{_NEEDED_CAPABILITIES}"
        )
    return None


def no_package(module: str, newest: tuple[int, int]) -> str | None:
    """Why a package cannot be used, with the next step; None if it can. CuPy must also find its compiler."""
    try:
        if module == "cupy":
            ask("compiler")
        else:
            ask("package", module)
    except ProbeError as error:
        return f"{module} cannot be used ({error}): {install_command(newest)}"
    return None


def cards_on_the_bus(root: Path = Path("/")) -> list[str]:
    """PCI addresses of NVIDIA's display and 3D controllers, whether there is a driver for them or not."""
    found = []
    for folder in sorted((root / "sys/bus/pci/devices").glob("*")):
        try:
            vendor, kind = ((folder / name).read_text().strip() for name in ("vendor", "class"))
        except OSError:  # unplugged meanwhile
            continue
        if vendor == "0x10de" and kind.startswith("0x03"):
            found.append(folder.name)
    return found


def _slices() -> tuple[GpuFacts, ...]:
    try:
        with Nvml() as nvml:
            return nvml.slices
    except NvmlError:
        return ()


def _slice(index: int, uuid: str, facts: GpuFacts | None) -> Gpu:
    if facts is None:
        return Gpu(index, uuid, "MIG slice", None, None, None)
    return Gpu(index, uuid, facts.name, facts.memory_bytes, facts.compute_capability, facts.bus_id)


def _named(word: str, devices: Sequence[Gpu]) -> Gpu:
    if word.isdecimal():
        found = [gpu for gpu in devices if gpu.index == int(word)]
    else:
        exact = [gpu for gpu in devices if gpu.uuid.lower() == word.lower()]
        found = exact or [gpu for gpu in devices if gpu.uuid.lower().startswith(word.lower())]
    if len(found) > 1:
        raise UsageError(f"--gpu-ids {word}: {', '.join(gpu.uuid for gpu in found)} begin so; write more of it")
    if not found:
        raise UsageError(f"--gpu-ids {word}: {_seen(devices)}")
    return found[0]


def _seen(devices: Sequence[Gpu]) -> str:
    if not devices:
        return "no GPU is visible here; gpupipe doctor says why"
    return f"visible here: {', '.join(f'{gpu.index} ({gpu.name}, {gpu.uuid})' for gpu in devices)}"


def _cpus(text: str) -> set[int]:
    """CPUs of a list such as ``0-15,64-79``."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found |= set(range(int(first), int(last or first) + 1))
    return found
