"""What is watched while a run trains: the schema of the `callbacks` group."""

from __future__ import annotations

from dataclasses import dataclass, field

from graftlab.errors import ConfigError, require_range


@dataclass(kw_only=True, slots=True)
class Validation:
    """When the validation loss is measured; the end of the run always is."""

    every_epochs: int | None = 1
    """After every N epochs; null for never."""
    every_steps: int | None = None
    """Also after every N optimizer steps."""

    def __post_init__(self) -> None:
        require_range("callbacks.validation.every_epochs", self.every_epochs, least=1)
        require_range("callbacks.validation.every_steps", self.every_steps, least=1)


@dataclass(kw_only=True, slots=True)
class Samples:
    """Replies to held-out prompts while training."""

    prompts: int = 2
    """How many validation prompts are answered; 0 for none."""
    every_epochs: int | None = None
    """After every N epochs; null samples only at the end."""
    every_steps: int | None = None
    """Also after every N optimizer steps."""

    def __post_init__(self) -> None:
        require_range("callbacks.samples.prompts", self.prompts, least=0)
        require_range("callbacks.samples.every_epochs", self.every_epochs, least=1)
        require_range("callbacks.samples.every_steps", self.every_steps, least=1)


@dataclass(kw_only=True, slots=True)
class EarlyStopping:
    """Stop when the validation loss no longer falls."""

    patience: int = 2
    """Validations without improvement before stopping."""
    min_delta: float = 0.0
    """Nats per token that count as an improvement."""

    def __post_init__(self) -> None:
        require_range("callbacks.early_stopping.patience", self.patience, least=1)
        require_range("callbacks.early_stopping.min_delta", self.min_delta, least=0)


@dataclass(kw_only=True, slots=True)
class Plateau:
    """Stop when the smoothed training loss no longer falls."""

    patience: int = 20
    """Optimizer steps without improvement before stopping."""
    min_delta: float = 0.002
    """Nats per token that count as an improvement."""
    min_steps: int = 50
    """Never stop before this step."""
    smoothing: float = 0.9
    """Weight of the past in the exponential average."""

    def __post_init__(self) -> None:
        require_range("callbacks.plateau.patience", self.patience, least=1)
        require_range("callbacks.plateau.min_delta", self.min_delta, least=0)
        require_range("callbacks.plateau.min_steps", self.min_steps, least=0)
        require_range("callbacks.plateau.smoothing", self.smoothing, least=0, most=0.9999)


@dataclass(kw_only=True, slots=True)
class RepetitionAlarm:
    """Warn, or stop, when sampled text degenerates ("Vac Vac Vac") and the base's does not."""

    threshold: float = 0.5
    """Share of 3-grams that repeat an earlier one above which text counts as degenerate, unless
    the base's own reply is above it too."""
    stop: bool = False
    """Stop the run instead of only warning."""

    def __post_init__(self) -> None:
        require_range("callbacks.repetition.threshold", self.threshold, above=0, most=1)


@dataclass(kw_only=True, slots=True)
class Callbacks:
    """`callbacks=default`, or several: `callbacks=[default,early-stopping,plateau]`."""

    progress: bool = True
    """A progress bar with loss, tokens/s and time left (plain lines when not on a terminal)."""
    validation: Validation = field(default_factory=Validation)
    samples: Samples = field(default_factory=Samples)
    early_stopping: EarlyStopping | None = None
    plateau: Plateau | None = None
    repetition: RepetitionAlarm | None = field(default_factory=RepetitionAlarm)

    def __post_init__(self) -> None:
        never = self.validation.every_epochs is None and self.validation.every_steps is None
        if self.early_stopping is not None and never:
            raise ConfigError(
                "callbacks.early_stopping waits for a validation loss, which is only measured at "
                "the end: give callbacks.validation.every_epochs=1 or every_steps=N, or leave "
                "early-stopping out."
            )
