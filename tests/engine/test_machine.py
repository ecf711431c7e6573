import os
import subprocess
import sys

from gpupipe.machine import cpu_quota, free_memory_bytes, memory_bytes, oom_kills, usable_cores


def fake(tmp_path, files):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_cgroup_v2_quota_of_any_ancestor_bounds(tmp_path):
    root = fake(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
        },
    )
    assert cpu_quota(root) == 1.5
    assert usable_cores(root) == min(2, len(os.sched_getaffinity(0)))


def test_cgroup_v1_quota(tmp_path):
    root = fake(
        tmp_path,
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
    )
    assert cpu_quota(root) == 0.5
    assert usable_cores(root) == 1


def test_no_quota(tmp_path):
    assert cpu_quota(tmp_path) is None
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))


def test_hyper_threads_of_one_core_count_once(tmp_path):
    cpus = os.sched_getaffinity(0)
    root = fake(tmp_path, {f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": "0-127\n" for cpu in cpus})
    assert usable_cores(root) == 1


def test_memory_kills_of_the_cgroup_or_else_of_the_machine(tmp_path):
    assert oom_kills(tmp_path) is None
    root = fake(tmp_path, {"proc/vmstat": "nr 1\noom_kill 3\n"})
    assert oom_kills(root) == 3
    fake(root, {"proc/self/cgroup": "0::/x\n", "sys/fs/cgroup/x/memory.events": "low 0\noom 9\noom_kill 7\n"})
    assert oom_kills(root) == 7


def test_memory_is_bounded_by_every_cgroup_above(tmp_path):
    root = fake(tmp_path, {"proc/meminfo": "MemTotal: 2000 kB\nMemAvailable: 1500 kB\n"})
    assert memory_bytes(root) == 2000 * 1024
    assert free_memory_bytes(root) == 1500 * 1024
    group = "sys/fs/cgroup/a"
    words = {"memory.max": "1000000\n", "memory.current": "900000\n", "memory.stat": "anon 1\ninactive_file 300000\n"}
    fake(root, {"proc/self/cgroup": "0::/a/b\n", f"{group}/b/memory.max": "max\n"})
    fake(root, {f"{group}/{name}": text for name, text in words.items()})
    assert memory_bytes(root) == 1_000_000
    assert free_memory_bytes(root) == 400_000


USES = """
from gpupipe.machine import usage
before = usage()
data = b"x" * (64 << 20)
after = usage()
assert after.resident_bytes - before.resident_bytes > 32 << 20, (before, after)
assert after.peak_bytes >= after.resident_bytes, after
"""


def test_a_process_knows_what_it_uses():
    """One of its own: in this one, what other tests left may be freed in between."""
    subprocess.run([sys.executable, "-c", USES], check=True)
