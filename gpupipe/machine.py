"""What this process may use of its machine, and what it uses: cores by affinity, cgroup and topology; memory."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Physical cores this process may run on: the affinity mask, hyper-threads of one core counted once,
    no more than the CPU time its cgroup grants (rounded up); at least 1.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(root, cpu) for cpu in allowed}
    quota = cpu_quota(root)
    return max(1, len(cores) if quota is None else min(len(cores), -int(-quota // 1)))


def _siblings(root: Path, cpu: int) -> str:
    try:
        return (root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)  # no topology shown here: a core of its own


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time the cgroup (v2, else v1) grants; None where it sets no bound."""
    quotas = []
    for folder in _own_groups(root):
        words = _read(folder / "cpu.max").split()
        if len(words) == 2 and words[0] != "max":
            quotas.append(int(words[0]) / int(words[1]))
    quota = _read(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us").strip()
    period = _read(root / "sys/fs/cgroup/cpu/cpu.cfs_period_us").strip()
    if quota and period and int(quota) > 0:
        quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _own_groups(root: Path) -> list[Path]:
    """The cgroup v2 folders from this process's own up to the root: every one of them bounds."""
    top = root / "sys/fs/cgroup"
    path = "/"
    for line in _read(root / "proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            path = line[3:]
    own = top / path.lstrip("/")
    return [own, *(parent for parent in own.parents if parent == top or top in parent.parents)]


def oom_kills(root: Path = Path("/")) -> int | None:
    """Processes of this cgroup the out-of-memory killer has ended so far; None where nothing says."""
    for folder in _own_groups(root):
        for line in _read(folder / "memory.events").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    for line in _read(root / "proc/vmstat").splitlines():  # the whole machine's count, where cgroups say nothing
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return None


def memory_bytes(root: Path = Path("/")) -> int:
    """Memory this process and its children may use: the machine's, no more than its cgroup (v2, else v1) grants."""
    bounds = [int(line.split()[1]) * 1024 for line in _read(root / "proc/meminfo").splitlines() if "MemTotal" in line]
    words = [_read(folder / "memory.max").strip() for folder in _own_groups(root)]
    words.append(_read(root / "sys/fs/cgroup/memory/memory.limit_in_bytes").strip())
    bounds += [int(word) for word in words if word.isdigit()]
    return min(bounds, default=1 << 62)


def free_memory_bytes(root: Path = Path("/")) -> int:
    """Memory that could be had now without swapping: of the machine, and of every cgroup (v2) above this process.

    Files' pages that a cgroup holds and has not used lately count as free, as the kernel counts them for the machine.
    """
    lines = _read(root / "proc/meminfo").splitlines()
    bounds = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    for folder in _own_groups(root):
        limit, used = _read(folder / "memory.max").strip(), _read(folder / "memory.current").strip()
        if limit.isdigit() and used.isdigit():
            stat = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
            bounds.append(int(limit) - int(used) + int(stat.get("inactive_file", 0)))
    return max(0, min(bounds, default=1 << 62))


@dataclass(frozen=True, slots=True)
class Usage:
    """What this process has used so far; bytes read and written count the page cache too.

    Attributes
    ----------
    cpu_seconds : float
    read_bytes, written_bytes : int
    resident_bytes, peak_bytes : int
    """

    cpu_seconds: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0
    resident_bytes: int = 0
    peak_bytes: int = 0


def usage() -> Usage:
    """Of this process, now; what the system does not tell is 0."""
    io = dict(line.split(": ") for line in _read(Path("/proc/self/io")).splitlines())
    # Not ru_maxrss: that begins with the size of the process this one was forked from.
    status = dict(line.split(":", 1) for line in _read(Path("/proc/self/status")).splitlines())
    resident, peak = (int(status.get(key, "0").split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
    return Usage(time.process_time(), int(io.get("rchar", 0)), int(io.get("wchar", 0)), resident, peak)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
