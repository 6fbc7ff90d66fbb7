"""What every part of a run needs; built once, by `train.open_run`."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from recjax.checkpointing.checkpoints import Checkpoints
from recjax.data.dataset import Data
from recjax.data.text.packing import Items, Packing, catalogue_pieces, whole_catalogue
from recjax.data.text.tokenize import Tokens
from recjax.evaluation.evaluator import Evaluator
from recjax.models.recommender import Recommender
from recjax.reporting.writer import Reporter
from recjax.runtime.compiler import Compiler
from recjax.runtime.host_memory import peak_memory
from recjax.runtime.mesh import batch_sharding, place, replicated, row_multiple
from recjax.runtime.signals import Signals
from recjax.runtime.timer import Timer


@dataclass
class Run:
    """The parts of a run.

    Attributes:
      titles: how the items are called, by catalogue row.
      pretrained: digest of the encoder's weights, where they are read from a file.
      dry: whether nothing is computed that takes long.
      timer: seconds by part, including those of interrupted processes.
      peak_before: MiB, the most that one of those processes had.
    """

    config: Any
    data: Data
    titles: list[str]
    tokens: Tokens | None
    model: Recommender
    mesh: Mesh
    compiler: Compiler
    evaluator: Evaluator
    reporter: Reporter
    checkpoints: Checkpoints
    signals: Signals
    pretrained: str | None
    timer: Timer
    dry: bool = False
    peak_before: int = 0

    @functools.cached_property
    def dropout_key(self) -> jax.Array:
        """A step folds its number in."""
        return self.replicate(jax.random.key(self.config.seed + 1))

    def packing(self) -> Packing:
        """How the catalogue's texts are packed."""
        assert self.tokens is not None
        width = max(self.config.text.row_tokens, int(self.tokens.lengths.max()))
        multiple = row_multiple(self.mesh)
        multiple = math.lcm(multiple, self.config.text.remat_rows or 1)
        return Packing(self.tokens, width, multiple)

    def chunks(self, packing: Packing | None) -> list[Items]:
        """The catalogue, in pieces of `text.rows_per_batch` rows where it has texts."""
        n, multiple = self.data.num_items, row_multiple(self.mesh)
        if packing is None:
            return [whole_catalogue(n, None, multiple)]
        rows = self.config.text.rows_per_batch
        return catalogue_pieces(n, packing, multiple, rows)

    def shard_batch(self, tree: Any) -> Any:
        """Onto the devices, first dimensions over the data axis."""
        return place(tree, batch_sharding(self.mesh, tree))

    def replicate(self, tree: Any) -> Any:
        """Onto every device."""
        return place(tree, replicated(self.mesh))

    def peak_memory(self) -> int:
        """The most memory, in MiB, of any process that worked on the run so far."""
        return max(self.peak_before, peak_memory())
