"""The parts of a training phase, and how it runs one step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from recjax.common.param_paths import FlatParams, unflatten_params
from recjax.data.batching.train_batches import TrainBatches
from recjax.data.batching.types import Batch
from recjax.evaluation.model_scorer import ModelScorer
from recjax.runtime.compiler import Compiled
from recjax.training.train_step import TrainState


@dataclass(frozen=True)
class Phase:
    """The parts of a phase; nothing in it changes while the phase runs.

    Attributes:
      index: number of the phase among those with epochs.
      config: config of the phase, one of `config.train.phases`.
      settings: `config.train`.
      first_step: global step at its start.
      frozen: the parameters that the phase does not train.
      batches: training batches.
      place: puts a batch, and the item arrays that it reads, on the devices.
      scorer: ranks the catalogue with any parameters of the phase.
      step: the compiled train step.
      dropout_key: the key from which every step derives its own.
      refresh_steps: steps between two encodings of the stale table.
      synchronous: whether a step is dispatched only when the one before is done.
      learning_rates: learning rate by group of parameters, after a number of steps.
    """

    index: int
    config: Any
    settings: Any
    first_step: int
    frozen: FlatParams
    batches: TrainBatches
    place: Callable[[Batch], tuple[Any, Batch]]
    scorer: ModelScorer
    step: Compiled
    dropout_key: jax.Array
    refresh_steps: int
    synchronous: bool
    learning_rates: Callable[[int], dict[str, float]]

    def step_of(self, epoch: int, step: int) -> int:
        """Global step after some epochs of the phase, and some steps of the next."""
        return self.first_step + epoch * self.batches.steps_per_epoch + step

    def run_step(
        self, state: TrainState, stale: dict[str, Any], batch: Batch
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Dispatches a train step; returns state and metrics that are being computed.

        Args:
          state: the state before the step; its memory is reused.
          stale: the result of `encode_stale`; empty unless negatives are stale.
          batch: the batch, on the host.
        """
        catalogue, placed = self.place(batch)
        return self.step(
            state, self.frozen, {**catalogue, **stale}, placed, self.dropout_key
        )

    def is_refresh_step(self, step: int) -> bool:
        """Returns whether a step of an epoch starts with a new stale table."""
        return self.batches.negatives.is_stale and step % self.refresh_steps == 0

    def encode_stale(self, state: TrainState) -> dict[str, Any]:
        """Encodes the catalogue with current weights, as negatives of later steps."""
        params = self.nested(state.trainable)
        return {"stale": {"vectors_NxD": self.scorer.encode_catalogue(params)[0]}}

    def nested(self, trainable: FlatParams) -> dict[str, Any]:
        """Joins trainable and frozen parameters, nested as the model reads them."""
        return unflatten_params({**trainable, **self.frozen})
