"""The words of ``gpupipe doctor``."""

from __future__ import annotations

from collections.abc import Iterable
from io import StringIO

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gpupipe.cuda.probe import CHROMAS, CODECS, DEPTHS
from gpupipe.estimate import size_text
from gpupipe.findings import Device, Driver, Findings, Machine, Package

_GOOD, _BAD, _FAINT = "green", "red", "dim"
_MIN_COLUMNS = 90  # below, a table would lose words; the terminal breaks its lines instead


def doctor_text(found: Findings, width: int = 100, colour: bool = False) -> str:
    """All findings, for a terminal of `width` columns or, without colour, for a pipe."""
    parts: list[RenderableType] = [_machine(found.machine), _driver(found.driver)]
    if found.devices:
        parts += [Text(""), _devices(found.devices), *_decoders(found.devices)]
    modules = {package.module for package in found.packages}
    abilities = {name: reason for name, reason in found.abilities.items() if name not in modules}  # those are above
    parts += [Text(""), _packages(found.packages), Text(""), _abilities(abilities)]
    if found.advice:
        parts += [Text(""), *(Text(f"-> {text}") for text in found.advice)]
    return _drawn(Group(*parts), width, colour)


def required_text(found: Findings, width: int = 100, colour: bool = False) -> str:
    """A line for each ability that was asked for."""
    return _drawn(_abilities(found.abilities), width, colour)


def _drawn(what: RenderableType, width: int, colour: bool) -> str:
    # No terminal of its own: where the text goes, and how, is the caller's matter.
    console = Console(
        file=StringIO(),
        width=max(width, _MIN_COLUMNS),
        force_terminal=colour,
        no_color=None if colour else True,  # None: as NO_COLOR says
        highlight=False,
        legacy_windows=False,
    )
    with console.capture() as captured:
        console.print(what)
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").splitlines())


def _machine(machine: Machine) -> Table:
    table = _pairs()
    table.add_row("gpupipe", f"{machine.gpupipe}, Python {machine.python}, {machine.system}")
    free = f"{size_text(machine.free_memory_bytes)} of {size_text(machine.memory_bytes)} memory free"
    table.add_row("machine", f"{machine.cores} cores to use ({machine.cpus} CPUs), {free}")
    return table


def _driver(driver: Driver) -> Table:
    table = _pairs()
    if driver.cuda is None:
        table.add_row("driver", Text("none", style=_BAD))
    else:
        version = driver.version or "of unknown version"
        table.add_row("driver", f"NVIDIA {version}, takes CUDA up to {driver.cuda}")
    return table


def _pairs() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style=_FAINT, min_width=8)
    table.add_column()
    return table


def _devices(devices: Iterable[Device]) -> Table:
    table = _table("GPU", "name", "memory", "compute", "NVDEC", "NVJPG", "near CPUs", "id")
    for device in devices:
        gpu = device.gpu
        table.add_row(
            str(gpu.index),
            Text(gpu.name),
            "unknown" if gpu.memory_bytes is None else size_text(gpu.memory_bytes),
            "unknown" if gpu.compute_capability is None else ".".join(map(str, gpu.compute_capability)),
            _engines(device.engines),
            _engines(device.jpeg_engines),
            _ranges(device.cores),
            gpu.uuid,
        )
    return table


def _engines(count: int | None) -> str:
    return "unknown" if count is None else str(count)


def _decoders(devices: Iterable[Device]) -> Iterable[RenderableType]:
    """What each kind of card decodes, cards that are alike together."""
    alike: dict[object, list[Device]] = {}
    for device in devices:
        alike.setdefault((device.kinds, device.nvdec), []).append(device)
    for several in alike.values():
        names = ", ".join(str(device.gpu.index) for device in several)
        device = several[0]
        yield Text("")
        if device.nvdec is not None:
            yield Text(f"GPU {names} decodes: unknown, {device.nvdec}", style=_BAD)
            continue
        yield Text(f"GPU {names} decodes (largest picture, height x width):")
        sizes = {(kind.codec, kind.chroma, kind.depth): f"{kind.max_height}x{kind.max_width}" for kind in device.kinds}
        table = _table("", "", *(f"{depth} bit" for depth in DEPTHS))
        for codec in CODECS:
            chromas = [chroma for chroma in CHROMAS if any((codec, chroma, depth) in sizes for depth in DEPTHS)]
            for chroma in chromas or ("",):
                table.add_row(codec, ":".join(chroma), *(sizes.get((codec, chroma, depth), "-") for depth in DEPTHS))
        yield Padding(table, (0, 0, 0, 2))


def _packages(packages: Iterable[Package]) -> Table:
    table = _table("package", "version", "for", "")
    for package in packages:
        if package.problem is None:
            words = Text("ok" + (f", {package.note}" if package.note else ""), style=_GOOD)
        else:
            words = Text(package.problem, style=_BAD if package.installed else _FAINT)
        table.add_row(package.name, package.version or "-", package.purpose, words)  # Text: [cu13] is no markup
    return table


def _abilities(abilities: dict[str, str | None]) -> Table:
    table = Table.grid(padding=(0, 2))
    said: dict[str, str] = {}
    for name, reason in abilities.items():
        if reason is None:
            table.add_row(name, Text("yes", style=_GOOD), "")
            continue
        first = said.setdefault(reason, name)
        table.add_row(name, Text("missing", style=_BAD), Text(reason if first == name else f"as {first}"))
    return table


def _table(*headings: str) -> Table:
    table = Table(*headings, box=None, pad_edge=False, header_style=_FAINT, padding=(0, 2, 0, 0))
    for column in table.columns[:-1]:
        column.no_wrap = True
    table.columns[-1].overflow = "fold"  # an id in two lines, rather than half of one
    return table


def _ranges(numbers: Iterable[int]) -> str:
    """``0-7,16`` of 0, 1, ... 7, 16."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)
