"""The verb `chat`: a conversation with an adapter, or its base, in the terminal.

Run as: graftlab chat adapter=RUN
"""

from __future__ import annotations

from dataclasses import dataclass, field

from graftlab.errors import ConfigError, require_choice, require_range
from graftlab.generation.sampling import Generation
from graftlab.models.base import ModelSpec
from graftlab.training.precision import Precision


@dataclass(kw_only=True, slots=True)
class ChatSpec:
    """`graftlab chat adapter=RUN`."""

    model: ModelSpec | None = None
    """Base model; null takes the one the adapter was trained on."""
    adapter: str | None = None
    """A run folder, adapter folder or checkpoint; null talks to the base alone."""
    system: str | None = None
    """System turn; null takes the one that the adapter saw in training, if there was one."""
    frame: str | None = None
    """A persona frame (a YAML file, or the name of a shipped one) to put every question into."""
    scale: float = 1.0
    """Adapter strength: 0 is the base, 1 as trained, 0.7 softer; `/scale` changes it."""
    precision: Precision = field(default_factory=Precision)
    generation: Generation = field(default_factory=Generation)
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        require_range("scale", self.scale, least=0)
        require_choice("device", self.device, ("auto", "cpu", "cuda", "mps"))
        if self.adapter is None and self.model is None:
            raise ConfigError("Give adapter=RUN, or model=tiny (or another) to talk to a base.")
        if self.adapter is None and self.scale != 1:
            raise ConfigError(f"scale={self.scale} needs an adapter: give adapter=RUN.")
        if self.system is not None and self.frame is not None:
            raise ConfigError("frame brings its own system turn: leave system out.")


def run(spec: ChatSpec) -> None:
    """Talk until the input ends.

    Raises ConfigError or ModelError with the fix: a missing file, an adapter that was trained on
    another base; where no terminal is, also for a line that cannot be answered.
    """
    from graftlab.adapters.artifact import trained_model
    from graftlab.text.frame import load_frame

    frame = load_frame(spec.frame) if spec.frame is not None else None
    trained = trained_model(spec.adapter, spec.model)

    from graftlab.adapters.attach import load_trained
    from graftlab.chat.session import Chat
    from graftlab.chat.talk import talk
    from graftlab.chat.window import Window
    from graftlab.console import console
    from graftlab.data.system import system_of
    from graftlab.generation.answering import Asked
    from graftlab.models.cache import acquire
    from graftlab.training.device import pick_device
    from graftlab.training.precision import resolve

    tokenizer = trained.load_tokenizer()
    device = pick_device(spec.device, key="device")
    precision = resolve(spec.precision, device)
    seen = system_of(trained.adapter.run() if trained.adapter else {})
    with acquire(trained.model, dtype=precision.base_dtype, device=device) as base:
        adapter = load_trained(base, trained, dtype=precision.adapter_dtype)
        asked = Asked(base, tokenizer, spec.generation, precision.autocast)
        system = seen["system"] if spec.system is None else spec.system
        chat = Chat(
            asked,
            adapter,
            scale=spec.scale,
            system=system,
            instruction=seen["instruction"],
            frame=frame,
        )
        window = Window(console())
        who = f"{base.name} with {spec.adapter}" if adapter else base.name
        window.note(f"{who}, {precision.name} on {device.type}; /help lists the commands.")
        with base.answering():
            talk(chat, window)
