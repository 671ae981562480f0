"""The verb `sample`: base and adapter answer the same prompts, side by side."""

from __future__ import annotations

from dataclasses import dataclass, field

from graftlab.errors import ConfigError, require_range
from graftlab.generation.sampling import Generation
from graftlab.models.base import ModelSpec
from graftlab.training.precision import Precision


@dataclass(kw_only=True, slots=True)
class SampleSpec:
    """`graftlab sample adapter=RUN prompt="..."`."""

    model: ModelSpec | None = None
    """Base model; null takes the one the adapter was trained on."""
    adapter: str | None = None
    """A run folder, adapter folder or checkpoint; null samples the base alone."""
    prompt: str | None = None
    """One user turn, as plain text."""
    prompts: str | None = None
    """A file of conversations (same shapes as training data; a last assistant turn is left out)."""
    system: str | None = None
    """System turn for `prompt`."""
    frame: str | None = None
    """A persona frame (YAML: system, instruction, constraints) to put the prompt into."""
    scale: float = 1.0
    """Adapter strength: 0 is the base, 1 as trained, 0.7 softer."""
    compare: bool = True
    """Answer with the base as well."""
    stream: bool = True
    """Write tokens to the terminal as they come."""
    out: str | None = None
    """Also write the replies to this JSONL file."""
    limit: int | None = None
    """Only the first N prompts of `prompts`."""
    precision: Precision = field(default_factory=Precision)
    generation: Generation = field(default_factory=Generation)
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        require_range("scale", self.scale, least=0)
        require_range("limit", self.limit, least=1)
        if (self.prompt is None) == (self.prompts is None):
            raise ConfigError('Give either prompt="..." or prompts=FILE.jsonl.')
