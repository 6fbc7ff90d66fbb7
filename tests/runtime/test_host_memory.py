"""Peak memory of a process, without that of its parent."""

import subprocess
import sys

import numpy as np
import pytest

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
