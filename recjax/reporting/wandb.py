"""Sends scalars to Weights & Biases if `report.wandb` names a project.

W&B's own `sync_tensorboard` is no replacement: it counts steps by itself and cannot
skip those it already has, so a resumed run would show the repeated steps twice.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recjax.common.errors import UserError, explain


class WandbWriter:
    """A W&B run, which a resumed recjax run continues under the same id.

    `WANDB_MODE=offline` keeps the data in the run directory, for a later `wandb sync`.
    A UserError is raised if wandb is not installed, or refuses to start the run.
    """

    def __init__(self, workdir: Path, project: str, config: Mapping[str, Any]):
        try:
            import wandb
        except ImportError:
            raise UserError(
                "report.wandb: needs wandb; pip install 'wandb>=0.20'"
            ) from None
        folder = workdir.resolve()
        # The id is in a file: after the directory is deleted, a run gets a new one.
        id_file = folder / "wandb_id"
        if not id_file.exists():
            id_file.write_text(secrets.token_hex(8))
        try:
            self._run = wandb.init(
                project=project,
                dir=folder,
                name="/".join(folder.parts[-2:]),
                id=id_file.read_text(),
                resume="allow",
                config=dict(config),
                settings=wandb.Settings(silent=True, console="off"),
            )
        except Exception as e:  # e.g. no API key, no network, no such project
            raise UserError(f"report.wandb: {' '.join(explain(e))}") from None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Sends the scalars of a step, unless W&B has them from before a resume."""
        if step >= self._run.starting_step:
            self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Waits until everything is sent, or stored in offline mode."""
        self._run.finish()
