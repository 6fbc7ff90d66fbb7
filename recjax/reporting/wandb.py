"""Weights & Biases, beside TensorBoard, where `report.wandb` names a project."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recjax.common.errors import UserError, explain

RUN_ID_FILE = "wandb_id"  # file of the run directory: another run there is another one


class WandbWriter:
    """A run of a project; resumed, it goes on under the same id.

    `WANDB_MODE=offline` keeps it below the run directory, for `wandb sync`.

    Args:
      workdir: the run directory; its last two parts name the run.
      project: that it is filed under.
      config: by key.

    Raises:
      UserError: no such package, or what it says against it.
    """

    def __init__(self, workdir: Path, project: str, config: Mapping[str, Any]):
        try:
            import wandb
        except ImportError:
            raise UserError(
                "report.wandb: needs wandb; pip install 'recjax[wandb]'"
            ) from None
        whole = workdir.resolve()
        name = "/".join(whole.parts[-2:])
        if not (kept := whole / RUN_ID_FILE).exists():
            kept.write_text(secrets.token_hex(8))
        try:
            self._run = wandb.init(
                project=project,
                dir=whole,
                name=name,
                id=kept.read_text(),
                resume="allow",
                config=dict(config),
                settings=wandb.Settings(silent=True, console="off"),
            )
        except Exception as e:  # many kinds: no key, no network, no such project
            raise UserError(f"report.wandb: {' '.join(explain(e))}") from None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Of a step, unless it was sent before the run was resumed."""
        if step >= self._run.starting_step:
            self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Waits until everything is sent or kept."""
        self._run.finish()
