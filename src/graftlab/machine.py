"""What a machine has, does and costs: the `machine` group, one YAML file per machine.

Peak rates are data sheets' (dense, without sparsity). Achieved rates are what LoRA training of a
model that fills the machine gets out of it: measured by somebody where a source is named, else an
estimate, and the file says which.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from graftlab.errors import ConfigError, require_choice, require_range
from graftlab.files.paths import conf_dir
from graftlab.limits import memory_bytes

GIB = 2**30
DTYPES = ("fp32", "bf16", "fp16")


@dataclass(kw_only=True, slots=True)
class Rates:
    """Floating-point operations per second by dtype, in units of 10**12; null where not known."""

    fp32: float | None = None
    """TFLOP/s in fp32."""
    bf16: float | None = None
    """TFLOP/s in bf16."""
    fp16: float | None = None
    """TFLOP/s in fp16."""

    def __post_init__(self) -> None:
        for dtype in DTYPES:
            require_range(f"machine rate {dtype}", getattr(self, dtype), above=0)

    def of(self, dtype: str) -> float | None:
        """FLOP/s (not tera) in `dtype`, or None."""
        rate: float | None = getattr(self, dtype)
        return None if rate is None else rate * 1e12


@dataclass(kw_only=True, slots=True)
class Machine:
    """`machine=h100`: the machine that `graftlab plan` and budgets estimate for.

    It decides nothing about where a run really happens: that is `trainer`.
    """

    title: str = "this machine's processor"
    """Name for people."""
    kind: str = "cpu"
    """cpu, cuda or mps."""
    memory: float | None = None
    """GiB it is sold with; null asks this machine."""
    usable: float | None = None
    """GiB a run can have, without what the system and driver keep; null for all of `memory`."""
    peak: Rates = field(default_factory=Rates)
    """What the data sheet promises, in TFLOP/s; null measures a matrix product on this machine."""
    achieved: Rates = field(default_factory=Rates)
    """What training reaches, in TFLOP/s; null takes a share of the peak (`probe=true` measures)."""
    watts: float = 65.0
    """Draw of the whole machine under training load."""
    price: float = 0.02
    """US dollars per hour: rent, or electricity for a machine of one's own."""

    def __post_init__(self) -> None:
        require_choice("machine.kind", self.kind, ("cpu", "cuda", "mps"))
        require_range("machine.memory", self.memory, above=0)
        require_range("machine.usable", self.usable, above=0)
        require_range("machine.watts", self.watts, above=0)
        require_range("machine.price", self.price, least=0)
        if self.memory is not None and self.usable is not None and self.usable > self.memory:
            raise ConfigError(
                f"machine.usable={self.usable:g} is more than machine.memory={self.memory:g}."
            )

    @property
    def bytes(self) -> float:
        """Memory a run can have."""
        given = self.usable or self.memory
        return memory_bytes() if given is None else given * GIB


def all_machines() -> dict[str, Machine]:
    """Every machine of `conf/machine/` by the name of its file, in order of memory."""
    from graftlab.files.reading import read_yaml

    found = {}
    for file in sorted((conf_dir() / "machine").glob("*.yaml")):
        values: dict[str, Any] = read_yaml(file)
        for name in ("peak", "achieved"):
            values[name] = Rates(**values.get(name) or {})
        found[file.stem] = Machine(**values)
    return dict(sorted(found.items(), key=lambda item: item[1].bytes))
