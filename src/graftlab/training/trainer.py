"""On what the run runs: device, number of processes, strategy; and the Lightning trainer for it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, require_choice, require_range

if TYPE_CHECKING:
    import lightning
    import torch

    from graftlab.training.precision import Resolved

LAUNCHED = "GRAFTLAB_LAUNCHED"
"""Set in the environment of processes that `training/ranks.py` has started."""


@dataclass(kw_only=True, slots=True)
class TrainerSpec:
    """`trainer=auto|cpu|cuda|mps|ddp|ddp-cpu|fsdp2`."""

    accelerator: str = "auto"
    """auto, cpu, cuda or mps; auto takes the best there is."""
    devices: int = 1
    """Processes (one device each) on this machine."""
    strategy: str = "single"
    """single, ddp or fsdp2."""
    threads: int | None = None
    """CPU threads for matrix work; null leaves PyTorch's choice."""
    log_every: int = 1
    """Optimizer steps between two rows of the training log."""

    def __post_init__(self) -> None:
        require_choice("trainer.accelerator", self.accelerator, ("auto", "cpu", "cuda", "mps"))
        require_choice("trainer.strategy", self.strategy, ("single", "ddp", "fsdp2"))
        require_range("trainer.devices", self.devices, least=1)
        require_range("trainer.threads", self.threads, least=1)
        require_range("trainer.log_every", self.log_every, least=1)
        if self.strategy == "single" and self.devices > 1:
            raise ConfigError(
                f"trainer.devices={self.devices} needs a strategy for several processes: "
                "use trainer=ddp or trainer=fsdp2."
            )

    @property
    def needs_launch(self) -> bool:
        """Whether this process still has to start the run's own processes.

        Raises ConfigError under a torchrun that graftlab has not started itself: its processes
        would each compose a run folder of their own.
        """
        if self.strategy == "single" or LAUNCHED in os.environ:
            return False
        if "RANK" in os.environ:
            raise ConfigError(
                "trainer.devices=N starts its own processes: run the command without torchrun."
            )
        return True

    def build(
        self,
        *,
        device: torch.device,
        precision: Resolved,
        accumulate: int,
        max_steps: int,
        callbacks: list[Any],
    ) -> lightning.Trainer:
        """A Lightning trainer that only loops: validation, logs, checkpoints are our callbacks.

        Epochs are the loader's business; the trainer knows the number of optimizer steps alone,
        so a checkpoint taken on an epoch's last step resumes like any other.
        """
        import lightning

        from graftlab.training.sharded import ReplicatedBase, ShardedBase

        several = {"ddp": ReplicatedBase, "fsdp2": ShardedBase}
        strategy: Any = several[self.strategy]() if self.strategy in several else "auto"
        # Autocast is the module's own, the same in training, validation and the probe; only fp16
        # needs Lightning's plugin, for the loss scaler.
        return lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=self.devices,
            strategy=strategy,
            precision="16-mixed" if precision.name == "fp16-mixed" else "32-true",
            accumulate_grad_batches=accumulate,
            max_steps=max_steps,
            max_epochs=-1,
            limit_val_batches=0,
            callbacks=callbacks,
            plugins=[_checkpoint_files()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            inference_mode=False,
        )


def _checkpoint_files() -> Any:
    """How Lightning writes checkpoints: beside their place. Its own way goes through TMPDIR, which
    may be a small disk, or none.
    """
    from lightning.pytorch.plugins.io import TorchCheckpointIO

    from graftlab.training.checkpoint import write_checkpoint

    class Beside(TorchCheckpointIO):
        def save_checkpoint(
            self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
        ) -> None:
            write_checkpoint(checkpoint, Path(path))

    return Beside()
