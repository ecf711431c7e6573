"""What the driver counts of each card, read through NVML.

NVML makes no CUDA context and takes no memory of the card, so the supervisor, which never touches CUDA, may look.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gpupipe.closing import Closing
from gpupipe.errors import GpupipeError

PACKAGE = "nvidia-ml-py"

T = TypeVar("T")

# NVML's return codes, by their names in nvml.h.
_DRIVER_NOT_LOADED, _LIBRARY_NOT_FOUND, _GPU_IS_LOST, _RESET_REQUIRED, _MISMATCH, _GPU_NOT_FOUND = 9, 12, 15, 16, 18, 28
_LOST = (_DRIVER_NOT_LOADED, _GPU_IS_LOST, _RESET_REQUIRED, _GPU_NOT_FOUND)
_NEXT_STEP = (
    "Look for its last Xid in the kernel's log; reset it (nvidia-smi --gpu-reset) or restart the machine, then run "
    "the same command again"
)


class NvmlError(GpupipeError, RuntimeError):
    """NVML cannot be used here; says why and what to do."""


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """A card, or a MIG slice of one.

    Attributes
    ----------
    index : int
        NVML's, by PCI address; CUDA may count otherwise, so cards are told apart by ``uuid``.
    uuid : str
        ``"GPU-..."`` or ``"MIG-..."``.
    name : str
    memory_bytes : int or None
        None where the card shares the host's memory.
    compute_capability : (int, int) or None
    bus_id : str
        PCI address as sysfs writes it, ``"0000:3b:00.0"``; of a slice, its card's.
    """

    index: int
    uuid: str
    name: str
    memory_bytes: int | None
    compute_capability: tuple[int, int] | None
    bus_id: str


@dataclass(frozen=True, slots=True)
class GpuSample:
    """A card at one moment. Shares are means over the driver's last sampling period (up to a second).

    Attributes
    ----------
    uuid : str
    sm_percent, decoder_percent, jpeg_percent : int or None
        Share of the time in which any kernel ran, and that of the busiest video decoder and JPEG decoder, 0 to 100;
        None where the card does not tell (a MIG slice).
    memory_used_bytes : int or None
    power_watts : float or None
    lost : str or None
        Why the card no longer answers; the numbers are None then.
    """

    uuid: str
    sm_percent: int | None = None
    decoder_percent: int | None = None
    jpeg_percent: int | None = None
    memory_used_bytes: int | None = None
    power_watts: float | None = None
    lost: str | None = None


class Nvml(Closing):
    """The driver's management library, opened; one thread at a time.

    Attributes
    ----------
    driver : str
        Version of the driver, ``"580.95.05"``.
    cuda : (int, int)
        The newest CUDA it takes.
    devices : tuple of GpuFacts
        The cards that this process may see, in NVML's order.
    slices : tuple of GpuFacts
        The MIG slices of those that are cut into some.
    lost : tuple of str
        A sentence on each card that did not answer.

    Raises
    ------
    NvmlError
        No package, no library, no driver.
    """

    def __init__(self) -> None:
        self._lib = _load()
        # Handles are taken once, by number: looking for a UUID fails for every card when any one is lost.
        self._handles: dict[str, Any] = {}
        cards: list[GpuFacts] = []
        slices: list[GpuFacts] = []
        lost: list[str] = []
        try:
            self._lib.nvmlInit()
        except self._lib.NVMLError as error:
            raise NvmlError(_why_not(error)) from error
        try:
            self.driver = str(self._lib.nvmlSystemGetDriverVersion())
            number = int(self._lib.nvmlSystemGetCudaDriverVersion_v2())
            for index in range(int(self._lib.nvmlDeviceGetCount())):
                try:
                    card = self._lib.nvmlDeviceGetHandleByIndex(index)
                    cards.append(self._facts(index, card, card))
                    slices += [self._facts(index, handle, card) for handle in self._slices(card)]
                except self._lib.NVMLError as error:
                    lost.append(f"GPU {index} does not answer (NVML: {error}). {_NEXT_STEP}")
        except self._lib.NVMLError as error:
            self.close()
            raise NvmlError(_why_not(error)) from error
        self.cuda = (number // 1000, number % 1000 // 10)
        self.devices, self.slices, self.lost = tuple(cards), tuple(slices), tuple(lost)

    def close(self) -> None:
        """Give the library back."""
        # With the last card gone there may be nothing left to give back to.
        with contextlib.suppress(self._lib.NVMLError):
            self._lib.nvmlShutdown()

    def sample(self, uuid: str) -> GpuSample:
        """The card's counters now."""
        handle = self._handles.get(uuid)
        if handle is None:
            # Slices also have names of an older kind, by which CUDA knows them and NVML does not.
            known = uuid.startswith("MIG-")
            return GpuSample(uuid, lost=None if known else f"{uuid}: NVML knows no such card")
        try:
            return GpuSample(
                uuid,
                sm_percent=self._told("nvmlDeviceGetUtilizationRates", handle, lambda rates: int(rates.gpu)),
                decoder_percent=self._told("nvmlDeviceGetDecoderUtilization", handle, lambda pair: int(pair[0])),
                jpeg_percent=self._told("nvmlDeviceGetJpgUtilization", handle, lambda pair: int(pair[0])),
                memory_used_bytes=self._told("nvmlDeviceGetMemoryInfo", handle, lambda memory: int(memory.used)),
                power_watts=self._told("nvmlDeviceGetPowerUsage", handle, lambda milliwatts: float(milliwatts) / 1000),
            )
        except self._lib.NVMLError as error:
            return GpuSample(uuid, lost=f"{uuid} no longer answers (NVML: {error}). {_NEXT_STEP}")

    def _facts(self, index: int, handle: Any, card: Any) -> GpuFacts:
        uuid = str(self._lib.nvmlDeviceGetUUID(handle))
        self._handles[uuid] = handle
        return GpuFacts(
            index=index,
            uuid=uuid,
            name=str(self._lib.nvmlDeviceGetName(handle)),
            memory_bytes=self._told("nvmlDeviceGetMemoryInfo", handle, lambda memory: int(memory.total)),
            compute_capability=self._told(
                "nvmlDeviceGetCudaComputeCapability", card, lambda pair: (int(pair[0]), int(pair[1]))
            ),
            bus_id=pci_address(self._lib.nvmlDeviceGetPciInfo(card).busId),
        )

    def _slices(self, card: Any) -> Iterator[Any]:
        if not self._told("nvmlDeviceGetMigMode", card, lambda modes: bool(modes[0])):
            return
        for number in range(int(self._lib.nvmlDeviceGetMaxMigDeviceCount(card))):
            slice_ = self._told("nvmlDeviceGetMigDeviceHandleByIndex", card, lambda handle: handle, number)
            if slice_ is not None:  # the numbers of slices that were taken away stay free
                yield slice_

    def _told(self, name: str, handle: Any, value: Callable[[Any], T], *more: int) -> T | None:
        """What a question about a card gives; None where card, driver or package know no answer."""
        ask = getattr(self._lib, name, None)
        if ask is None:
            return None
        try:
            return value(ask(handle, *more))
        except self._lib.NVMLError as error:
            if error.value in _LOST:
                raise
            return None


class Sampler:
    """Samples of some cards, as often as it is asked; never raises, since a display is no reason to end a run.

    Parameters
    ----------
    uuids : sequence of str, optional
        Default all that NVML sees.

    Attributes
    ----------
    reason : str or None
        Why there are no samples.
    """

    def __init__(self, uuids: Sequence[str] | None = None) -> None:
        self.reason: str | None = None
        self._nvml: Nvml | None = None
        self._lost: dict[str, GpuSample] = {}
        self._uuids: list[str] = []
        try:
            self._nvml = Nvml()
            names = [facts.uuid for facts in self._nvml.devices] if uuids is None else uuids
            self._uuids = list(dict.fromkeys(names))
        except NvmlError as error:
            self.reason = str(error)

    def sample(self) -> list[GpuSample]:
        """One of each card, in their order. A card that was lost stays so: asking it again may block."""
        if self._nvml is None:
            return []
        samples = []
        for uuid in self._uuids:
            one = self._lost.get(uuid) or self._nvml.sample(uuid)
            if one.lost is not None:
                self._lost[uuid] = one
            samples.append(one)
        return samples

    def close(self) -> None:
        """Give NVML back."""
        if self._nvml is not None:
            self._nvml.close()
            self._nvml = None
            self.reason = "closed"


def pci_address(bus_id: str | bytes) -> str:
    """A PCI address as sysfs writes it; NVML's and CUDA's have other cases and longer domains."""
    text = bus_id.decode() if isinstance(bus_id, bytes) else bus_id
    domain, _, rest = text.partition(":")
    return f"{int(domain, 16):04x}:{rest.lower()}"


def _load() -> Any:
    try:
        import pynvml
    except (ImportError, RuntimeError, OSError) as error:
        raise NvmlError(f"{PACKAGE} does not import ({error}): pip install {PACKAGE}") from error
    return pynvml


def _why_not(error: Any) -> str:
    if error.value == _LIBRARY_NOT_FOUND:
        return (
            "libnvidia-ml.so.1 is not there: install the NVIDIA driver; in a container, give it the card "
            "(--gpus all) with NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
        )
    if error.value == _DRIVER_NOT_LOADED:
        return "the NVIDIA driver's kernel module is not loaded: modprobe nvidia, or restart after its installation"
    if error.value == _MISMATCH:
        return "the NVIDIA driver's library and kernel module have other versions: restart after the driver's update"
    return f"NVML does not start: {error}"
