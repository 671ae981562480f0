"""What is watched while a run trains: the schema of the `callbacks` group."""

from __future__ import annotations

from dataclasses import dataclass, field

from graftlab.errors import ConfigError, require_range
from graftlab.registry import collection
from graftlab.training.callbacks.likelihood import LikelihoodAlarm
from graftlab.training.callbacks.repetition import RepetitionAlarm
from graftlab.training.callbacks.spec import CallbackSpec


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


def _usual() -> dict[str, CallbackSpec]:
    return {"repetition": RepetitionAlarm(), "likelihood": LikelihoodAlarm()}


@collection("callbacks")
@dataclass(kw_only=True, slots=True)
class Callbacks:
    """`callbacks=default`, or several: `callbacks=[default,early-stopping,plateau]`."""

    progress: bool = True
    """A progress bar with loss, tokens/s and time left (plain lines when not on a terminal)."""
    validation: Validation = field(default_factory=Validation)
    samples: Samples = field(default_factory=Samples)
    chosen: dict[str, CallbackSpec] = field(default_factory=_usual)

    def __post_init__(self) -> None:
        never = self.validation.every_epochs is None and self.validation.every_steps is None
        for key in self.waiting if never else ():
            raise ConfigError(
                f"callbacks.{key} waits for a validation loss, which is only measured at the end: "
                "give callbacks.validation.every_epochs=1 or every_steps=N, or leave "
                f"{key.replace('_', '-')} out."
            )

    @property
    def waiting(self) -> list[str]:
        """The keys of those that do nothing without a validation loss."""
        return [key for key, spec in sorted(self.chosen.items()) if spec.waits_for_validation]
