"""Peak memory of a process, without that of its parent."""

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
