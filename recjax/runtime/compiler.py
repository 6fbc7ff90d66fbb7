"""Compiles functions ahead of time, and reports and times every compilation.

`jax.jit` alone would compile too, but `jax.monitoring` reports the compilations of the
whole process, eager operations among them, to global listeners, which is more code and
no longer says which function of which run is being compiled.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from recjax.runtime.mesh import replicated

SLOW_SECONDS = 5.0


class Compiler:
    """Compiles functions at their first call, and adds up the `seconds` this takes.

    `log` receives a line about each that takes longer than `SLOW_SECONDS`.
    `replicated` is the sharding of arrays that every process reads.
    """

    def __init__(self, log: Callable[[str], None], mesh: Mesh):
        self.log = log
        self.seconds = 0.0
        self.replicated = replicated(mesh)

    def __call__(
        self,
        name: str,
        function: Callable[..., Any],
        donate: tuple[int, ...] = (),
        out_shardings: Any = None,
    ) -> "Compiled":
        """Wraps a pure function; memory of the arguments in `donate` may be reused."""
        jitted = jax.jit(function, donate_argnums=donate, out_shardings=out_shardings)
        return Compiled(self, name, jitted)

    def compile(self, name: str, jitted: Any, args: tuple[Any, ...]) -> Any:
        """Compiles a jitted function for arguments of these shapes."""
        # Compiling a large encoder takes minutes, and most other functions little time.
        notice = threading.Timer(SLOW_SECONDS, self.log, [f"compiling {name} ..."])
        notice.daemon = True
        notice.start()
        start = time.perf_counter()
        try:
            return jitted.lower(*args).compile()
        finally:
            notice.cancel()
            self.seconds += time.perf_counter() - start


class Compiled:
    """A jitted function and its compiled programs, made by a `Compiler`."""

    def __init__(self, compiler: Compiler, name: str, jitted: Any):
        self._compiler = compiler
        self._name = name
        self._jitted = jitted
        self._programs: dict[Any, Any] = {}

    def __call__(self, *args: Any) -> Any:
        """Runs the function, and compiles it first if the shapes are new."""
        leaves, structure = jax.tree.flatten(args)
        key = (structure, tuple((x.shape, x.dtype, _placement(x)) for x in leaves))
        if key not in self._programs:
            self._programs[key] = self._compiler.compile(self._name, self._jitted, args)
        return self._programs[key](*args)

    def memory(self, *args: Any) -> int:
        """Bytes of device memory that a call takes: inputs, outputs and temporaries."""
        found = self._jitted.lower(*args).compile().memory_analysis()
        # Donated inputs share their memory with outputs; without the alias term they
        # would count twice.
        outputs = found.output_size_in_bytes - found.alias_size_in_bytes
        return int(found.argument_size_in_bytes + outputs + found.temp_size_in_bytes)

    def __len__(self) -> int:
        """The number of sets of shapes that have been compiled."""
        return len(self._programs)


def _placement(x: jax.Array) -> Any:
    """A key for the placement of an array, equal for equivalent shardings."""
    # `P("data")` and `P("data", None)` place a matrix alike but compare unequal, and
    # would compile the same program twice.
    if not isinstance(x.sharding, NamedSharding):
        return x.sharding
    axes = tuple(x.sharding.spec)
    while axes and axes[-1] is None:
        axes = axes[:-1]
    return x.sharding.mesh, axes
