"""On what the run runs: device, number of processes, strategy."""

from __future__ import annotations

from dataclasses import dataclass

from graftlab.errors import require_choice, require_range


@dataclass(kw_only=True, slots=True)
class TrainerSpec:
    """`trainer=auto|cpu|cuda|mps|ddp|ddp-cpu|fsdp2`."""

    accelerator: str = "auto"
    """auto, cpu, cuda or mps; auto takes the best there is."""
    devices: int = 1
    """Processes (one device each) on this machine."""
    num_nodes: int = 1
    """Machines."""
    strategy: str = "single"
    """single, ddp or fsdp2."""
    threads: int | None = None
    """CPU threads for matrix work; null leaves PyTorch's choice."""
    log_every: int = 1
    """Optimizer steps between two log lines."""

    def __post_init__(self) -> None:
        require_choice("trainer.accelerator", self.accelerator, ("auto", "cpu", "cuda", "mps"))
        require_choice("trainer.strategy", self.strategy, ("single", "ddp", "fsdp2"))
        require_range("trainer.devices", self.devices, least=1)
        require_range("trainer.num_nodes", self.num_nodes, least=1)
        require_range("trainer.threads", self.threads, least=1)
        require_range("trainer.log_every", self.log_every, least=1)
