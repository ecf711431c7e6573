"""What ``gpupipe doctor`` found: the machine, the driver, its cards, the packages, and what they are good for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gpupipe.cuda.devices import Gpu


@dataclass(frozen=True)
class Findings:
    """All of it.

    Attributes
    ----------
    machine : Machine
    driver : Driver
    devices : tuple of Device
    packages : tuple of Package
    abilities : dict of str to (str or None)
        For each of :data:`gpupipe.doctor.ABILITIES` that was looked at None, or why it is missing and what to do.
    advice : tuple of str
        What to do next, most useful first.
    """

    machine: Machine
    driver: Driver
    devices: tuple[Device, ...]
    packages: tuple[Package, ...]
    abilities: dict[str, str | None]
    advice: tuple[str, ...]

    @property
    def missing(self) -> dict[str, str]:
        """Abilities that are missing, with their reasons."""
        return {name: reason for name, reason in self.abilities.items() if reason is not None}

    def package(self, module: str) -> Package:
        """One of the packages."""
        return next(package for package in self.packages if package.module == module)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Machine:
    """The machine, less its cards.

    Attributes
    ----------
    system, python, gpupipe : str
        ``"Linux 6.8 x86_64"``, and versions.
    cores, cpus : int
        Physical cores this process may use; CPUs that the system counts.
    memory_bytes, free_memory_bytes : int
        What this process may use; what it could have now.
    """

    system: str
    python: str
    gpupipe: str
    cores: int
    cpus: int
    memory_bytes: int
    free_memory_bytes: int


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver; each reason comes with its next step.

    Attributes
    ----------
    version : str or None
        None where NVML does not tell.
    cuda : str or None
        The newest CUDA it takes.
    problem : str or None
        Why it shows no card.
    video : str or None
        Why its video libraries do not load.
    nvml : str or None
        Why its counters cannot be read.
    lost : tuple of str
        Cards that do not answer.
    """

    version: str | None
    cuda: str | None
    problem: str | None
    video: str | None
    nvml: str | None
    lost: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """A kind of stream that a card decodes; sides in pixels."""

    codec: str
    chroma: str
    depth: int
    engines: int
    max_height: int
    max_width: int


@dataclass(frozen=True)
class Device:
    """One card.

    Attributes
    ----------
    gpu : Gpu
    cores : tuple of int
        CPUs near it.
    kinds : tuple of Kind
        What its NVDEC decodes.
    nvdec : str or None
        Why that is not known.
    jpeg_engines : int or None
    nvjpeg : str or None
        Why their number is not known.
    """

    gpu: Gpu
    cores: tuple[int, ...]
    kinds: tuple[Kind, ...]
    nvdec: str | None
    jpeg_engines: int | None
    nvjpeg: str | None

    @property
    def engines(self) -> int | None:
        """Video decoders; None if not known."""
        return max((kind.engines for kind in self.kinds), default=None if self.nvdec else 0)


@dataclass(frozen=True)
class Package:
    """What gpupipe uses where it is there: a package, the networks for keypoints, or MediaPipe in its environment.

    Attributes
    ----------
    module, name : str
        As Python imports it, or as :data:`gpupipe.doctor.ABILITIES` needs it, and as people call it.
    purpose : str
    installed : bool
    version, note : str or None
    problem : str or None
        Why it is of no use, with the next step.
    """

    module: str
    name: str
    purpose: str
    installed: bool
    version: str | None
    note: str | None
    problem: str | None
