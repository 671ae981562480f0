"""`target=vllm`: adapters that vLLM serves beside their base, and the line that starts it.

    adapter_config.json, adapter_model.safetensors    LoRA or rsLoRA, of one rank and one scale
    NAME/adapter_config.json, ...                     another adapter on the same base
    tokenizer*, *.jinja, generation_config.json       how a chat is written, and where replies end
    serve.sh                                          vllm serve BASE --enable-lora ...

vLLM refuses DoRA, modules trained in full and biases. Ranks and alphas of single modules it drops
without a word: they are folded into B, and padded with zeros to one rank, which changes no product.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.adapters.artifact import find_artifact
from graftlab.adapters.patterns import value_for
from graftlab.errors import ConfigError, ModelError
from graftlab.exports.generation_config import FILE as GENERATION
from graftlab.exports.generation_config import generation_config
from graftlab.exports.peft import CONFIG, WEIGHTS
from graftlab.exports.plain_base import PlainBase, require_plain_base, runtime_on_base
from graftlab.exports.runtimes.plain import rounding
from graftlab.exports.source import Trained, load
from graftlab.exports.target import Target, compare_file, save_tensors, write_config
from graftlab.registry import choice

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.exports.parity.spec import Bounds
    from graftlab.exports.runtimes.base import NotHere, Runtime

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What `--max-lora-rank` may be."""
SCRIPT, TEMPLATE = "serve.sh", "chat_template.jinja"
HEAD = (
    "# Serves the base with the adapters beside this file, in OpenAI's API on port 8000. What is",
    "# added to its line goes to vLLM: ./serve.sh --port 9000",
    'here=$(cd -- "$(dirname -- "$0")" && pwd)',
)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What an adapter may be called: clients name it as their model."""
_PART = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")


@dataclass(frozen=True, slots=True)
class Served:
    """An adapter as vLLM reads it."""

    state: Mapping[str, Tensor]
    config: Mapping[str, Any]
    rank: int


@choice("vllm")
@dataclass(kw_only=True, slots=True)
class VLLM(Target):
    """Adapter folders within vLLM's limits, and serve.sh."""

    adapters: dict[str, str] = field(default_factory=dict)
    """Further adapters on the same base, name -> run, such as {brass: RUN}; the first is called as
    the folder is."""

    def __post_init__(self) -> None:
        for name in self.adapters:
            _require_name(f"target.adapters.{name}", name)

    def check_name(self, name: str | None) -> None:
        if name is not None:
            _require_name("name", name)

    def check_files(self) -> None:
        for run in self.adapters.values():
            find_artifact(run)

    def check(self, adapter: Trained) -> list[str]:
        for one in self._all(adapter).values():
            served(one)
        self._base(adapter)
        return []

    def write(self, adapter: Trained, folder: Path) -> None:
        _require_name("the folder", folder.name)
        if folder.name in self.adapters:
            raise ConfigError(
                f"target.adapters.{folder.name} is called as the first adapter is, which has the "
                "folder's name: give another name."
            )
        base = self._base(adapter)
        found = {name: served(one) for name, one in self._all(adapter).items()}
        for name, one in found.items():
            place = folder / name  # the first has no name of its own
            place.mkdir(exist_ok=True)
            save_tensors(one.state, place / WEIGHTS, library="pt")
            write_config(place / CONFIG, one.config)
        tokenizer = base.trained.load_tokenizer()
        tokenizer.save(folder)
        write_config(folder / GENERATION, generation_config(base.model.folder(), tokenizer))
        script = folder / SCRIPT
        script.write_text(_script(base, folder, found), encoding="utf-8")
        script.chmod(0o755)

    def verify(self, adapter: Trained, folder: Path) -> list[str]:
        from peft import LoraConfig, PeftConfig

        facts = []
        for name, one in self._all(adapter).items():
            wanted = served(one)
            config = PeftConfig.from_pretrained(str(folder / name))
            if not isinstance(config, LoraConfig) or config.r != wanted.rank:
                raise ModelError(f"{folder.name}/{name}/{CONFIG} does not describe it to PEFT.")
            count = compare_file(folder / name / WEIGHTS, wanted.state)
            called = name or folder.name
            facts.append(f"{called}: rank {wanted.rank}, {count} tensors read back equal")
        return [*facts, f"{SCRIPT} starts it; vLLM itself was not asked"]

    def runtime(self, adapter: Trained, folder: Path) -> Runtime | NotHere:
        """Plain PEFT in vLLM's place, with the tokenizer and the ends that serve.sh gives it."""
        return runtime_on_base(adapter, folder, tokenizer=folder, generation=folder)

    def bounds(self, folder: Path) -> Bounds:
        return rounding(folder)

    def _all(self, adapter: Trained) -> dict[str, Trained]:
        """Place in the folder -> adapter; the first lies in the folder itself."""
        model = adapter.on_base.model if adapter.on_base else None
        return {"": adapter} | {name: load(run, model) for name, run in self.adapters.items()}

    def _base(self, adapter: Trained) -> PlainBase:
        """The base of all. Raises as `require_plain_base`, and where templates differ."""
        bases = {name: require_plain_base(a, "vllm") for name, a in self._all(adapter).items()}
        templates = {name: b.trained.load_tokenizer().template for name, b in bases.items()}
        others = [name for name, text in templates.items() if text != templates[""]]
        if others:
            raise ConfigError(
                f"target.adapters: {', '.join(others)} and {adapter.path} were trained with "
                "different chat templates, and one server has one: export them apart."
            )
        return bases[""]


def served(adapter: Trained, *, by: str = "vLLM") -> Served:
    """The adapter in one rank and one scale.

    Raises ModelError naming all that it does not serve.
    """
    adapter.require_transformers(by.lower())
    matrices = _matrices(adapter, by)
    config, rank = adapter.config, adapter.ranks[-1]
    plain, alpha = int(config.get("r", 8)), adapter.alpha
    rooted = bool(config.get("use_rslora"))

    def scale(alpha: float, rank: int) -> float:
        return alpha / (rank**0.5 if rooted else rank)

    state = {}
    for module, (lora_a, lora_b) in matrices.items():
        own = scale(value_for(config.get("alpha_pattern") or {}, module, alpha), len(lora_a))
        if own != scale(alpha, plain):
            lora_b = (lora_b.float() * (own / scale(alpha, plain))).to(lora_b.dtype)
        lora_a, lora_b = _padded(lora_a, lora_b, rank)
        state[f"base_model.model.{module}.lora_A.weight"] = lora_a
        state[f"base_model.model.{module}.lora_B.weight"] = lora_b
    shared = alpha * (scale(1.0, plain) / scale(1.0, rank))
    own_config = {
        **config,
        "r": rank,
        "lora_alpha": int(shared) if float(shared).is_integer() else shared,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    return Served(state, own_config, rank)


def _matrices(adapter: Trained, by: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Module -> A (rank, in) and B (out, rank). Raises ModelError for all that is no plain LoRA."""
    config = adapter.config
    problems = [key for key in ("use_dora", "lora_bias", "modules_to_save") if config.get(key)]
    problems += ["trainable_token_indices"] if config.get("trainable_token_indices") else []
    problems += [f"bias={config['bias']}"] if config.get("bias", "none") != "none" else []
    if adapter.ranks and adapter.ranks[-1] > RANKS[-1]:
        problems.append(f"rank {adapter.ranks[-1]} (at most {RANKS[-1]})")
    found: dict[str, dict[str, Tensor]] = {}
    others = []
    for name, tensor in adapter.state.items():
        if match := _PART.fullmatch(name):
            found.setdefault(match[1], {})[match[2]] = tensor
        else:
            others.append(name)
    others += [f"half of {module}" for module, parts in found.items() if len(parts) < 2]
    problems += [] if problems else others[:3]  # what they are has been said
    if problems or not found:
        what = ", ".join(problems) or "an adapter without LoRA"
        raise ModelError(
            f"{adapter.path}: {by} does not serve {what} beside a base. target=merged makes one "
            "model of both, which it serves."
        )
    return {module: (parts["A"], parts["B"]) for module, parts in found.items()}


def _padded(lora_a: Tensor, lora_b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Both at this rank, by rows and columns of zeros, which add nothing to their product."""
    from torch.nn.functional import pad

    more = rank - len(lora_a)
    return pad(lora_a, (0, 0, 0, more)).contiguous(), pad(lora_b, (0, more)).contiguous()


def _script(base: PlainBase, folder: Path, found: Mapping[str, Served]) -> str:
    """A shell script of fixed words and quoted ones, none of which a shell reads as its own."""
    model = base.model
    words = [model.hub or str(model.folder())]
    words += ["--revision", model.revision] if model.revision else []
    highest = max(one.rank for one in found.values())
    allowed = next(rank for rank in RANKS if rank >= highest)
    many = f" --max-loras {len(found)}" if len(found) > 1 else ""
    places = " ".join(_module(name, folder.name) for name in found)
    lines = [
        f"exec vllm serve {shlex.join(words)}",
        f"--enable-lora --max-lora-rank {allowed}{many}",
        f"--lora-modules {places}",
        '--generation-config "$here"',
        *([f'--chat-template "$here/{TEMPLATE}"'] if (folder / TEMPLATE).is_file() else []),
        '"$@"',
    ]
    return "\n".join(["#!/bin/sh", *HEAD, " \\\n  ".join(lines), ""])


def _module(name: str, first: str) -> str:
    place = f'"$here/{name}"' if name else '"$here"'
    return f"{shlex.quote(name or first)}={place}"


def _require_name(key: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{key} is called {name!r}, and clients ask vLLM for an adapter by its name: letters, "
            "digits, dots, hyphens and underscores, such as name=ficino-music."
        )
