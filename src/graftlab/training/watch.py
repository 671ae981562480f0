"""What is watched while a run trains: the schema of the `callbacks` group."""

from __future__ import annotations

from dataclasses import dataclass, field

from graftlab.errors import ConfigError, require_range
from graftlab.registry import collection
from graftlab.tracking.ranking import Ranking
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
        names = [name for spec in self.chosen.values() for name in spec.measures()]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigError(f"callbacks: several measure {', '.join(sorted(twice))}.")

    def check_ranking(self, ranking: Ranking) -> None:
        """Raise ConfigError where a callback waits for what is only measured at the end."""
        waiting, spec = self.waiting, self.validation
        measuring = next((k for k, c in self.chosen.items() if ranking.by in c.measures()), None)
        given = f"callbacks.{measuring or 'validation'}"
        repeats = spec.every_epochs is not None or spec.every_steps is not None
        if measuring is not None:
            repeats = self.chosen[measuring].repeats
        for key in () if repeats else waiting:
            raise ConfigError(
                f"callbacks.{key} waits for {ranking.told}, which is only measured at the end: "
                f"give {given}.every_epochs=1 or every_steps=N, or leave "
                f"{key.replace('_', '-')} out."
            )

    def measures(self) -> dict[str, str | None]:
        """What all of them measure: name -> which way is better."""
        every = [spec.measures() for _, spec in sorted(self.chosen.items())]
        return {name: better for measures in every for name, better in measures.items()}

    @property
    def waiting(self) -> list[str]:
        """The keys of those that do nothing without what steps are ranked by."""
        return [key for key, spec in sorted(self.chosen.items()) if spec.waits_for_validation]
