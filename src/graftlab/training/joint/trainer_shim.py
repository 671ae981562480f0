"""What a run's callbacks, its module and its checkpoints ask of a Lightning trainer, without one.

A joint run takes its own steps, so there is no trainer to ask; this one knows the step and writes
checkpoints that `trainer.fit` resumes from, as a run alone would have written them.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import lightning
import torch

from graftlab.training.checkpoint import write_checkpoint

if TYPE_CHECKING:
    from graftlab.training.callbacks.base import StepCallback
    from graftlab.training.module import AdapterModule
    from graftlab.training.step_plan import StepPlan

SINGLE = SimpleNamespace(
    reduce=lambda value, **_: value,
    broadcast=lambda value, **_: value,
    barrier=lambda *_: None,
    root_device=torch.device("cpu"),
)
"""The strategy of a run in one process."""


class TrainerShim:
    """One run's progress; `module`, `callbacks` and optimizer are the run's own."""

    is_global_zero = True
    world_size = 1
    global_rank = 0
    strategy = SINGLE
    precision_plugin = SimpleNamespace(precision="32-true")

    def __init__(self, module: AdapterModule, plan: StepPlan, *, accumulate: int) -> None:
        self.module, self.plan = module, plan
        self.accumulate_grad_batches = accumulate
        self.callbacks: list[StepCallback] = []
        self.global_step = 0
        self.should_stop = False
        built = module.configure_optimizers()
        self.optimizer: torch.optim.Optimizer = built["optimizer"]
        self.scheduler: Any = built["lr_scheduler"]["scheduler"]
        stand_in: Any = self
        module.trainer = stand_in

    @property
    def ended(self) -> bool:
        return self.should_stop or self.global_step >= self.plan.total_steps

    def update(self) -> None:
        """Clip, step, count. Raises NonFiniteError, before the update."""
        self.module.configure_gradient_clipping(self.optimizer)
        self.optimizer.step()
        self.scheduler.step()
        self.global_step += 1

    def save_checkpoint(self, path: Path) -> None:
        """The whole state, in the format of Lightning's checkpoints."""
        content: dict[str, Any] = {
            "epoch": (self.global_step - 1) // self.plan.steps_per_epoch,
            "global_step": self.global_step,
            "pytorch-lightning_version": lightning.__version__,
            "loops": {"fit_loop": loop_state(self.global_step, self.plan)},
            "callbacks": {c.state_key: state for c in self.callbacks if (state := c.state_dict())},
            "optimizer_states": [self.optimizer.state_dict()],
            "lr_schedulers": [self.scheduler.state_dict()],
        }
        self.module.on_save_checkpoint(content)
        write_checkpoint(content, path)

    def load_checkpoint(self, content: dict[str, Any]) -> None:
        """Go on from a checkpoint, whoever wrote it. Raises ResumeError for a foreign one."""
        self.module.on_load_checkpoint(content)
        self.optimizer.load_state_dict(content["optimizer_states"][0])
        self.scheduler.load_state_dict(content["lr_schedulers"][0])
        for callback in self.callbacks:
            if callback.state_key in content["callbacks"]:
                callback.load_state_dict(deepcopy(content["callbacks"][callback.state_key]))
        self.global_step = int(content["global_step"])


def loader_state(step: int, plan: StepPlan) -> dict[str, int]:
    """Where the training loader stands after this many steps."""
    epoch, steps = divmod(step, plan.steps_per_epoch)
    return {"epoch": epoch, "done": steps * plan.train.accumulate}


def loop_state(step: int, plan: StepPlan) -> dict[str, Any]:
    """Lightning's own progress right after the micro-batch that ended optimizer step `step`.

    It is written inside `on_train_batch_end`, where that micro-batch is not yet counted as
    completed. Lightning's epochs are passes of the loader.
    """
    epoch, in_epoch = divmod(step - 1, plan.steps_per_epoch)
    in_epoch += 1
    batches = min(in_epoch * plan.train.accumulate, len(plan.train))
    before = epoch * len(plan.train)

    def batch(count: int) -> dict[str, int]:
        return {"ready": count, "started": count, "processed": count, "completed": count - 1}

    def steps(*names: str) -> dict[str, Any]:
        return {"total": dict.fromkeys(names, step), "current": dict.fromkeys(names, in_epoch)}

    epochs = {"ready": epoch + 1, "started": epoch + 1, "processed": epoch, "completed": epoch}
    none = {"ready": 0, "completed": 0}
    idle = dict.fromkeys(("ready", "started", "processed", "completed"), 0)
    return {
        "state_dict": {"combined_loader": [loader_state(step, plan)]},
        "epoch_progress": {"total": epochs, "current": dict(epochs)},
        "epoch_loop.state_dict": {"_batches_that_stepped": step - 1},
        "epoch_loop.batch_progress": {
            "total": batch(before + batches),
            "current": batch(batches),
            "is_last_batch": batches == len(plan.train),
        },
        "epoch_loop.scheduler_progress": steps("ready", "completed"),
        "epoch_loop.automatic_optimization.state_dict": {},
        "epoch_loop.automatic_optimization.optim_progress": {
            "optimizer": {
                "step": steps("ready", "completed"),
                "zero_grad": steps("ready", "started", "completed"),
            }
        },
        "epoch_loop.manual_optimization.state_dict": {},
        "epoch_loop.manual_optimization.optim_step_progress": {"total": none, "current": none},
        "epoch_loop.val_loop.state_dict": {},
        "epoch_loop.val_loop.batch_progress": {
            "total": idle,
            "current": idle,
            "is_last_batch": False,
        },
    }
