"""The parts of a run, built once by `run.setup.open_run` and read everywhere else."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh

from recjax.catalogue.arrays import CatalogueBuilder
from recjax.checkpointing.checkpoints import Checkpoints
from recjax.data.dataset import Data
from recjax.data.text.packing import Tokens
from recjax.evaluation.evaluator import Evaluator
from recjax.models.recommender import Recommender
from recjax.reporting.writer import Reporter
from recjax.runtime.compiler import Compiler
from recjax.runtime.host_memory import peak_memory
from recjax.runtime.signals import Signals
from recjax.runtime.timer import Timer
from recjax.training.optimizer import PhaseRules


@dataclass
class Run:
    """The parts of a run.

    Attributes:
      titles: names of the items in the output, by item index.
      tokens: the tokenised texts of the items; None without a text source.
      neighbours_NxK: the items that may replace an item in a training window; None
        without `augment.substitute`.
      rules: the resolved rules of every phase with epochs.
      pretrained: digest of the encoder's weights, if they are read from a file.
      encoder_settings: digest of the encoder's config and tokenizer, if there is one.
      categories_N: category of each item, if an auxiliary loss predicts it.
      initial: digest of the model whose parameters are the initial ones, if any.
      timer: seconds by part, including those of interrupted processes.
      peak_before: largest memory of the interrupted processes, in MiB.
    """

    config: Any
    data: Data
    titles: list[str]
    tokens: Tokens | None
    catalogue: CatalogueBuilder
    neighbours_NxK: np.ndarray | None
    model: Recommender
    mesh: Mesh
    compiler: Compiler
    evaluator: Evaluator
    reporter: Reporter
    checkpoints: Checkpoints
    signals: Signals
    rules: list[PhaseRules]
    pretrained: str | None
    encoder_settings: str | None
    initial: str | None
    categories_N: np.ndarray | None
    timer: Timer
    peak_before: int = 0

    def resume_metadata(self) -> dict[str, Any]:
        """Returns the metadata of a checkpoint that describe the run so far."""
        return {
            **self.reporter.resume_state(),
            "seconds": self.timer.totals(),
            "peak_memory_mib": self.peak_memory(),
        }

    def peak_memory(self) -> int:
        """Largest memory, in MiB, of any process of the run so far."""
        return max(self.peak_before, peak_memory())
