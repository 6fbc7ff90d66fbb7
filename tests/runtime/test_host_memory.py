"""Peak memory of a process, without that of its parent."""

import os
import subprocess
import sys

import numpy as np
import pytest

from recjax.runtime import host_memory

LIMITED = """
from recjax.runtime.host_memory import available_memory
print(available_memory())
"""
HELD = """
import sys
from recjax.runtime.host_memory import peak_memory
before = peak_memory()
bytearray(int(sys.argv[1]) * 2**20)  # freed at once
print(before, peak_memory())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_of_the_process_alone():
    held = np.ones((400, 2**17))  # 400 MiB that the process below does not hold
    done = subprocess.run(
        [sys.executable, "-c", HELD, "300"], capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert 0 < before < 100
    assert before + 290 < after < before + 350
    assert held.nbytes == 400 * 2**20


def test_a_limit_of_the_process_counts():
    command = f"ulimit -v 3000000; exec {sys.executable} -c '{LIMITED}'"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == 3_000_000 * 1024


@pytest.mark.parametrize(
    ("groups", "files", "limits"),
    [
        ("0::/a/b\n", {"a/memory.max": "5000", "a/b/memory.max": "max"}, [5000]),
        ("0::/\n", {}, []),
        ("4:memory,cpu:/c\n1:name=x:/\n", {"memory/c/memory.limit_in_bytes": "7"}, [7]),
    ],
)
def test_limits_of_containers_count(tmp_path, monkeypatch, groups, files, limits):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "cgroup").write_text(groups)
    found = host_memory._cgroup_limits(tmp_path, tmp_path / "cgroup")
    assert found == limits
    monkeypatch.setattr(host_memory, "_cgroup_limits", lambda: [1, 2])
    assert host_memory.available_memory() == 1


START = """
import os, sys
from recjax.runtime.host_memory import restart_with_settings
restart_with_settings()
names = "GLIBC_TUNABLES", "OPENBLAS_THREAD_TIMEOUT"
print(*map(os.environ.get, names), sys.argv[1:], os.getpid())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="settings of glibc")
@pytest.mark.parametrize("own", [None, "glibc.malloc.arena_max=2"])
def test_a_program_starts_again_with_settings(tmp_path, own):
    """Once, as the same process, with its arguments; unless the user has settings."""
    script = tmp_path / "start.py"
    script.write_text(START)
    names = ("GLIBC_TUNABLES", "OPENBLAS_THREAD_TIMEOUT")
    environment = {k: v for k, v in os.environ.items() if k not in names}
    if own:
        environment["GLIBC_TUNABLES"] = own
    process = subprocess.Popen(
        [sys.executable, script, "--a=1", "b c"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    out, _ = process.communicate()
    expected = f"{own} None" if own else "glibc.malloc.hugetlb=1 4"
    assert out == f"{expected} ['--a=1', 'b c'] {process.pid}\n"


ALLOCATE = """
import ctypes, sys
from recjax.runtime.host_memory import keep_memory
keep_memory()
library = ctypes.CDLL(None)
library.malloc.restype = library.free.argtypes = None
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 // 2**20
before = resident()
block = library.malloc(int(sys.argv[1]) * 2**20)
ctypes.memset(block, 1, int(sys.argv[1]) * 2**20)
library.free(block)
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="settings of glibc")
@pytest.mark.parametrize(("mib", "kept"), [(200, True), (700, False)])
def test_large_blocks_are_returned_to_the_system(mib, kept):
    done = subprocess.run(
        [sys.executable, "-c", ALLOCATE, str(mib)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (int(done.stdout) > mib / 2) == kept
