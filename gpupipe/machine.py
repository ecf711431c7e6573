"""What this process may use of its machine: cores by affinity, cgroup and topology; memory kills."""

from __future__ import annotations

import os
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


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
