"""The one place where functions are compiled."""

import time
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from recjax.runtime.mesh import replicated


class Compiler:
    """Compiles ahead of time, says so, and adds up the seconds that it took.

    Args:
      say: receives two lines for every new set of shapes.
      mesh: of the run.

    Attributes:
      everywhere: the sharding of what every process reads.
      seconds: spent so far.
    """

    def __init__(self, say: Callable[[str], None], mesh: Mesh):
        self.log, self.seconds = say, 0.0
        self.everywhere = replicated(mesh)

    def __call__(
        self,
        name: str,
        function: Callable[..., Any],
        donate: tuple[int, ...] = (),
        out_shardings: Any = None,
    ) -> "Compiled":
        """The function, to be compiled at its first call.

        Args:
          name: for the messages.
          function: pure.
          donate: positions of arguments whose memory may be reused.
          out_shardings: as `jax.jit` takes them.
        """
        jitted = jax.jit(function, donate_argnums=donate, out_shardings=out_shardings)
        return Compiled(self, name, jitted)

    def compile(self, name: str, jitted: Any, args: tuple[Any, ...]) -> Any:
        """The program for arguments of these shapes."""
        self.log(f"compiling {name} ...")
        start = time.perf_counter()
        program = jitted.lower(*args).compile()
        took = time.perf_counter() - start
        self.seconds += took
        self.log(f"compiled {name} in {took:.1f} s")
        return program


class Compiled:
    """A jitted function, made by a `Compiler`."""

    def __init__(self, compiler: Compiler, name: str, jitted: Any):
        self._compiler, self._name, self._jitted = compiler, name, jitted
        self._programs: dict[Any, Any] = {}

    def __call__(self, *args: Any) -> Any:
        """Runs the function, compiling it first where the shapes are new."""
        leaves, structure = jax.tree.flatten(args)
        key = (structure, tuple((x.shape, x.dtype, _placement(x)) for x in leaves))
        if key not in self._programs:
            program = self._compiler.compile(self._name, self._jitted, args)
            self._programs[key] = program
        return self._programs[key](*args)

    def memory(self, *args: Any) -> int:
        """Bytes on a device for a call: what it is given, what it gives, between.

        Args:
          *args: arrays or their shapes.
        """
        found = self._jitted.lower(*args).compile().memory_analysis()
        return int(
            found.argument_size_in_bytes
            + found.output_size_in_bytes
            - found.alias_size_in_bytes
            + found.temp_size_in_bytes
        )

    def __len__(self) -> int:
        """How many sets of shapes have been compiled."""
        return len(self._programs)


def _placement(x: jax.Array) -> Any:
    """Where an array lies, the same for equivalent shardings."""
    if not isinstance(x.sharding, NamedSharding):
        return x.sharding
    axes = tuple(x.sharding.spec)
    while axes and axes[-1] is None:
        axes = axes[:-1]
    return x.sharding.mesh, axes
