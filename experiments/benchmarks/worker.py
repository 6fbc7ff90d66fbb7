"""Runs our side of a benchmark; like `recjax.main` it sets the allocator first."""

import runpy
import sys

from recjax.runtime.host_memory import keep_memory

if __name__ == "__main__":
    keep_memory()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
