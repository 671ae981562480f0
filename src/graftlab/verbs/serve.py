"""The verb `serve`: adapters behind an OpenAI-compatible endpoint, to try and to judge them.

Run as: graftlab serve RUN1 RUN2
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import Any

from graftlab.errors import ConfigError, require_choice, require_range
from graftlab.generation.sampling import Generation
from graftlab.models.base import ModelSpec
from graftlab.training.precision import Precision


@dataclass(kw_only=True, slots=True)
class ServeSpec:
    """`graftlab serve adapters=[RUN1,RUN2]`."""

    model: ModelSpec | None = None
    """Base model; null takes the one the adapters were trained on."""
    adapters: Any = field(default_factory=list)
    """Run folders, adapter folders or checkpoints of one base; none serves the base alone."""
    host: str = "127.0.0.1"
    """Where to listen: this machine alone, unless it is another address of it."""
    port: int = 8000
    """Where to listen; 0 takes a free port."""
    key_env: str | None = None
    """Environment variable with the key that requests must bring; needed where others reach it."""
    batch: int = 8
    """Replies that are made together at most."""
    precision: Precision = field(default_factory=Precision)
    generation: Generation = field(default_factory=Generation)
    """What a request leaves out; its seed is another one each time."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        if isinstance(self.adapters, str):
            self.adapters = [self.adapters]
        require_range("port", self.port, least=0, most=65535)
        require_range("batch", self.batch, least=1)
        require_choice("device", self.device, ("auto", "cpu", "cuda", "mps"))
        if not self.adapters and self.model is None:
            raise ConfigError("Give adapters=[RUN], or model=tiny (or another) to serve a base.")
        if self.generation.schema == "row":
            raise ConfigError("generation.schema=row: each request brings a response_format.")


def run(spec: ServeSpec) -> None:
    """Serve until a signal comes.

    Raises ConfigError or ModelError with the fix, before the base is loaded: packages, a key or
    adapters that are missing, adapters of several bases, a port that is taken; and Interrupted at
    the end.
    """
    for package in ("starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"graftlab serve needs the package {package}: pip install 'graftlab[serve]'."
            )

    from graftlab.serving.models import find_models, load_models
    from graftlab.serving.server import LOOPBACK_NAMES, is_loopback, listen, read_key, serve, url_of

    key = read_key(spec.host, spec.key_env)
    found = find_models(spec.adapters, spec.model)
    with listen(spec.host, spec.port) as bound:
        from graftlab.console import say
        from graftlab.models.cache import acquire
        from graftlab.serving.app import Service
        from graftlab.serving.engine import Engine
        from graftlab.training.device import pick_device
        from graftlab.training.precision import resolve

        device = pick_device(spec.device, key="device")
        precision = resolve(spec.precision, device)
        alone = next(iter(found.values()))
        with acquire(alone.model, dtype=precision.base_dtype, device=device) as base:
            models = load_models(base, found, dtype=precision.adapter_dtype)
            engine = Engine(base, precision.autocast, batch=spec.batch)
            hosts = LOOPBACK_NAMES | {spec.host} if is_loopback(spec.host) else None
            service = Service(engine, models, spec.generation, key=key, hosts=hosts)
            say(f"{base.name}, {precision.name} on {device.type}, as: {', '.join(models)}")
            bound.listen()  # whoever reads the next line may ask at once
            say(f"{url_of(bound)}; Ctrl-C ends it")
            serve(service, bound)
