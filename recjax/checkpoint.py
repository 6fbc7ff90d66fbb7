"""Save and restore; the only importer of orbax.

`checkpoints/last` holds the newest state, the best parameters of the phase and where
the run stands, in one atomic step. `checkpoints/params` holds all parameters at the
start of phase 0, 1, ..., and after the last one: frozen weights are written once a
phase, not once a save.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from recjax import trees
from recjax.steps import TrainState


class Checkpoints:
    """The checkpoints of a run directory."""

    def __init__(self, workdir: Path):
        folder = (workdir / "checkpoints").resolve()
        self._last = ocp.CheckpointManager(
            folder / "last",
            options=ocp.CheckpointManagerOptions(max_to_keep=1),
            item_names=("state", "best", "meta"),
        )
        self._params = ocp.CheckpointManager(
            folder / "params", item_names=("params", "meta")
        )

    def save_last(
        self, step: int, state: TrainState, best: trees.Flat, meta: dict[str, Any]
    ) -> None:
        """Saves in the background what a resumed run needs.

        Args:
          step: global step, larger than that of the last save.
          state: of the phase.
          best: the trainable parameters with the best validation metric.
          meta: JSON values.
        """
        self._last.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                best=ocp.args.StandardSave(best),
                meta=ocp.args.JsonSave(meta),
            ),
        )

    def last_meta(self) -> dict[str, Any] | None:
        """`meta` of the newest state; None where there is none."""
        return _meta(self._last)

    def standing(self) -> dict[str, Any] | None:
        """`meta` of the save that a resumed run continues from; None before any."""
        last, entered = self.last_meta(), _meta(self._params)
        inside = last and last["phase"] == self.params_index()
        return last if inside else entered

    def restore_last(self, like: TrainState) -> tuple[TrainState, trees.Flat]:
        """The newest state and best parameters, placed like the ones given."""
        restored = self._last.restore(
            self._last.latest_step(),
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(_abstract(like)),
                best=ocp.args.StandardRestore(_abstract(like.trainable)),
            ),
        )
        return restored["state"], restored["best"]

    def save_params(self, index: int, params: trees.Flat, meta: dict[str, Any]) -> None:
        """Saves all parameters as they enter phase `index`, and waits for it."""
        self._params.save(
            index,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(params), meta=ocp.args.JsonSave(meta)
            ),
        )
        self._params.wait_until_finished()

    def params_index(self) -> int | None:
        """Newest phase whose starting parameters are saved."""
        return self._params.latest_step()

    def restore_params(
        self, index: int, like: trees.Flat | None = None
    ) -> tuple[trees.Flat, dict[str, Any]]:
        """Parameters that enter phase `index`, placed like `like` or as saved."""
        restored = self._params.restore(
            index,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(
                    None if like is None else _abstract(like)
                ),
                meta=ocp.args.JsonRestore(),
            ),
        )
        return restored["params"], restored["meta"]

    def close(self) -> None:
        """Waits for background saves."""
        self._last.close()
        self._params.close()


def _abstract(tree: Any) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
    )


def _meta(manager: ocp.CheckpointManager) -> dict[str, Any] | None:
    step = manager.latest_step()
    if step is None:
        return None
    meta = ocp.args.Composite(meta=ocp.args.JsonRestore())
    return manager.restore(step, args=meta)["meta"]
