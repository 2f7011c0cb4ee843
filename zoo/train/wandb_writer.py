"""Weights & Biases as a further writer (`log.wandb`); the package is imported only for it."""

from __future__ import annotations

import sys
import tempfile
import types
import uuid
from typing import Any

from etils import epath

from zoo.config import Config, UserError, to_dict

ID_FILE = "wandb_id"


def require_wandb(config: Config, workdir: epath.Path | None) -> None:
    """Called before anything is trained. Raises UserError when `log.wandb` cannot be followed."""
    if config.log.wandb is None:
        return
    if workdir is None:
        raise UserError("log.wandb needs a workdir: the id of the W&B run is kept there")
    _import_wandb()


def _import_wandb() -> types.ModuleType:
    try:
        import wandb
    except ImportError:
        wandb = None
    # W&B leaves a folder ./wandb, which Python imports as an empty package.
    if wandb is None or not hasattr(wandb, "init"):
        raise UserError("log.wandb needs the package wandb: pip install -e '.[wandb]'")
    return wandb


class WandbWriter:
    """A W&B run that belongs to the workdir: a resumed run goes on in it."""

    def __init__(self, project: str, workdir: epath.Path, config: Config):
        """Raises UserError when W&B refuses (no login, no such project)."""
        remote = "://" in str(workdir)
        try:
            self._run: Any = _import_wandb().init(
                project=project,
                id=_run_id(workdir),
                name=workdir.name,
                config=to_dict(config),
                dir=tempfile.gettempdir() if remote else str(workdir),
                resume="allow",
            )
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"log.wandb={project!r}: {reason}") from None
        # A resumed run repeats the rows since its checkpoint, to the bit; W&B never goes back.
        self._first = self._run.starting_step

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Sends values by name, 'train/loss' for one."""
        if step >= self._first:
            self._run.log(scalars, step=step)

    def close(self) -> None:
        """Sends what waits; a run that ends by an exception is marked as failed."""
        self._run.finish(exit_code=int(sys.exc_info()[0] is not None))


def _run_id(workdir: epath.Path) -> str:
    """The id in WORKDIR/wandb_id, made on first use."""
    path = workdir / ID_FILE
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:16])
    return path.read_text().strip()
