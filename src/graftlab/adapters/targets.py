"""Which modules an adapter goes on, from the names in the safetensors header alone.

    model.layers.7.self_attn.q_proj.weight
                   ^^^^^^^^^           attention: a part of the path says attn or attention
                             ^^^^^^    the name PEFT is given, longer only where it is ambiguous

Fused projections (`qkv_proj`, `gate_up_proj`, `c_attn`) are found like any other: an architecture
needs no list of its own. Where layers carry state (recurrences, short convolutions, linear
attention), `auto` takes the projections around it too: `in_proj` and `out_proj`, whatever holds
them. The convolutions themselves are a few weights for each channel, and stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.adapters.patterns import check_patterns, token_ids
from graftlab.errors import ConfigError, did_you_mean
from graftlab.models.quantization.packed import weights_in
from graftlab.models.stateful import stateful_layers
from graftlab.models.weights import read_json

if TYPE_CHECKING:
    from graftlab.adapters.lora import Lora

HEAD = re.compile(r"(^|\.)(lm_head|embed_out)$")
IN_LAYER = re.compile(r"(?:.*?\.)?(\d+)\.(.+)")
ATTENTION = re.compile(r"attn|attention")
FEED_FORWARD = re.compile(r"mlp|ffn|feed_forward|feedforward")
CHOOSER = re.compile(r"(^|\.)((gate|router)(\.|$)|indexer\.)")
"""What chooses experts, or positions to attend to: a choice has no gradient."""
READ_AS_WEIGHTS = ("out_proj", "x_proj", "dt_proj")
"""Projections of a Mamba mixer, told by its `A_log` and `D`, whose weights the fused kernels (and
parts of the plain code) take as they are, past any adapter: LoRA on them would train nothing."""
EMBEDDING = re.compile(r"(^|\.)(embed_\w+|\w*embeddings?|wte|wpe)$")


Shapes = Mapping[str, tuple[int, ...]]
"""Tensor name -> shape."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What PEFT is told: module name endings, and the decoder layers (None for all)."""

    modules: list[str]
    layers: list[int] | None


@dataclass(frozen=True, slots=True)
class Modules:
    """A model's matrices as its files name them."""

    inside: dict[str, str]  # full name -> path within its decoder layer
    outside: list[str]  # the head, for instance
    everything: frozenset[str]  # every module that holds a tensor, and their parents
    num_layers: int
    bypassed: frozenset[str] = frozenset()
    """Full names of matrices that an adapter cannot be put on, or would not reach."""
    tied: bool = False
    """Whether the head is the embedding."""
    stateful: bool = False
    """Whether layers carry state along the row, as far as tensors tell."""

    def without(self, names: Collection[str]) -> Modules:
        """The same where `names` cannot be adapted either."""
        inside = {name: path for name, path in self.inside.items() if name not in names}
        return replace(self, inside=inside, bypassed=self.bypassed | set(names))

    @property
    def leaves(self) -> list[str]:
        return sorted({path.rsplit(".", 1)[-1] for path in [*self.inside.values(), *self.outside]})


def check_targets(folder: Path, lora: Lora, *, shapes: Shapes | None = None) -> None:
    """Raise ConfigError where a key of `lora` names nothing in this model.

    `shapes` gives its weights by name where no safetensors lie in its folder.
    """
    if not lora.full:
        resolve_targets(folder, lora, shapes=shapes)
        token_ids(folder, lora.trainable_tokens)


def resolve_targets(folder: Path, lora: Lora, *, shapes: Shapes | None = None) -> Targets:
    """`lora.targets` for the model in `folder`, by the names in its files; weights are not read.

    Raises ConfigError naming the key and what there is.
    """
    return targets_in(read_modules(folder, shapes), lora)


def targets_in(modules: Modules, lora: Lora) -> Targets:
    """`lora.targets` among these modules. Raises ConfigError naming the key and what there is."""
    _check_saved(modules, lora.modules_to_save)
    layers = _last_layers(modules, lora.layers)
    if isinstance(lora.targets, str):
        names = _preset(modules, lora.targets)
    else:
        names = _listed(modules, list(lora.targets), within_layers=layers is not None)
    targets = Targets(names, layers)
    check_patterns(lora, adapted_modules(modules, targets))
    _check_tokens(modules, targets, lora)
    return targets


def _check_tokens(modules: Modules, targets: Targets, lora: Lora) -> None:
    """Rows of the embedding are trained once: there, or in whatever else trains it."""
    if not lora.trainable_tokens:
        return
    tied = [HEAD] if modules.tied else []
    for key, names in (("modules_to_save", lora.modules_to_save), ("targets", targets.modules)):
        for name in names:
            if any(pattern.search(name) for pattern in (EMBEDDING, *tied)):
                raise ConfigError(
                    f"lora.trainable_tokens and lora.{key}=[{name}] both train the embedding"
                    f"{', to which the head is tied' if tied else ''}: leave one out."
                )


def read_modules(folder: Path, shapes: Shapes | None = None) -> Modules:
    """The matrices of the model in `folder`, by reading headers. Raises ModelError."""
    if shapes is None:
        shapes = {name: tensor.shape for name, tensor in weights_in(folder).items()}
    tied = bool(read_json(folder / "config.json").get("tie_word_embeddings"))
    return modules_in(shapes, tied=tied)


def modules_in(
    shapes: Mapping[str, tuple[int, ...]], *, tied: bool, taken: Collection[str] = ()
) -> Modules:
    """The matrices among tensors given by name and shape; `tied`: the head is the embedding.

    Those whose last part is `taken` for another module's cannot be adapted (`renamed.py`).
    """
    names = {name.rsplit(".", 1)[0] for name in shapes}
    matrices = [
        name.removesuffix(".weight")
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2
    ]
    if tied and "lm_head" not in names:
        matrices.append("lm_head")  # one tensor, two modules: only the embedding is stored
        names.add("lm_head")
    inside, outside, num_layers = {}, [], 0
    bypassed = _bypassed(shapes) | {n for n in matrices if n.rpartition(".")[2] in taken}
    for name in matrices:
        found = IN_LAYER.fullmatch(name)
        if name in bypassed:
            pass
        elif found and ".experts." not in name and not CHOOSER.search(name):
            inside[name] = found[2]
        elif not found and not EMBEDDING.search(name):
            outside.append(name)
        if found:
            num_layers = max(num_layers, int(found[1]) + 1)
    parents = {name.rsplit(".", depth)[0] for name in names for depth in range(name.count(".") + 1)}
    return Modules(
        inside,
        outside,
        frozenset(names | parents),
        num_layers,
        bypassed,
        tied=tied,
        stateful=bool(stateful_layers({}, shapes)),
    )


def _bypassed(shapes: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    mixers = {name.removesuffix(".A_log") for name in shapes if name.endswith(".A_log")}
    named = (f"{mixer}.{leaf}" for mixer in mixers for leaf in READ_AS_WEIGHTS)
    return frozenset(
        name
        for name in named
        if f"{name}.weight" in shapes and f"{name.rpartition('.')[0]}.D" in shapes
    )


def adapted_modules(modules: Modules, targets: Targets) -> list[str]:
    """Full names of the modules that PEFT, told `targets`, puts an adapter on."""
    inside = [
        name
        for name in modules.inside
        if targets.layers is None or _layer_number(name) in targets.layers
    ]
    outside = modules.outside if targets.layers is None else []
    return [n for n in [*inside, *outside] if any(_ends_with(n, t) for t in targets.modules)]


def _layer_number(name: str) -> int:
    found = IN_LAYER.fullmatch(name)
    assert found is not None, "modules inside a layer have its number in their name"
    return int(found[1])


def _preset(modules: Modules, preset: str) -> list[str]:
    attention = {n for n, path in modules.inside.items() if _within(ATTENTION, path)}
    feed_forward = {n for n, path in modules.inside.items() if _within(FEED_FORWARD, path)}
    both = bool(attention and feed_forward)
    chosen = {
        "attn": attention,
        "attn-mlp": attention | feed_forward,
        "all-linear": set(modules.inside),
        # What attn-mlp finds, unless that leaves out mixers, or the names tell nothing.
        "auto": attention | feed_forward if both and not modules.stateful else set(modules.inside),
    }[preset]
    if not chosen:
        raise ConfigError(
            f"lora.targets={preset} matches no module of this model. There are: "
            f"{', '.join(modules.leaves)}. Take lora.targets=auto, or a list."
        )
    return _shortest(modules, chosen)


def _within(pattern: re.Pattern[str], path: str) -> bool:
    containers, _, _ = path.rpartition(".")
    return bool(pattern.search(containers))


def _shortest(modules: Modules, chosen: set[str]) -> list[str]:
    """Last parts of the chosen names; the path within the layer where others share that part."""
    others = {_leaf(path) for n, path in modules.inside.items() if n not in chosen}
    others |= {_leaf(name) for name in [*modules.outside, *modules.bypassed]}
    paths = {modules.inside[name] for name in chosen}
    return sorted({path if _leaf(path) in others else _leaf(path) for path in paths})


def _leaf(path: str) -> str:
    """The last part, with what it counts where it is a number: `lists.0` of `mlp.lists.0`."""
    parts = path.split(".")
    start = next((i for i in reversed(range(len(parts))) if not parts[i].isdigit()), 0)
    return ".".join(parts[start:])


def _listed(modules: Modules, targets: list[str], *, within_layers: bool) -> list[str]:
    candidates = list(modules.inside) if within_layers else [*modules.inside, *modules.outside]
    for target in targets:
        if any(_ends_with(name, target) for name in candidates):
            continue
        if any(_ends_with(name, target) for name in modules.bypassed):
            raise ConfigError(
                f"lora.targets: {target} cannot be adapted in this model: it is a projection of a "
                "Mamba mixer, which fused kernels read past any adapter, or PEFT takes its name "
                f"for another one's. There are: {', '.join(modules.leaves)}."
            )
        if EMBEDDING.search(target):
            raise ConfigError(
                f"lora.targets: {target} is an embedding. Train it in full instead: "
                f"lora.modules_to_save=[{target}]"
            )
        where = "the chosen layers of this model" if within_layers else "this model"
        raise ConfigError(
            f"lora.targets: {target} matches no linear module of {where}."
            f"{did_you_mean(target, modules.leaves)} There are: {', '.join(modules.leaves)}."
        )
    return sorted(set(targets))


def _last_layers(modules: Modules, count: int | None) -> list[int] | None:
    if count is None:
        return None
    if count > modules.num_layers:
        raise ConfigError(
            f"lora.layers={count}: this model has {modules.num_layers} decoder layers; "
            "null adapts all of them."
        )
    return list(range(modules.num_layers - count, modules.num_layers))


def _check_saved(modules: Modules, names: list[str]) -> None:
    for wanted in names:
        if not any(_ends_with(name, wanted) for name in modules.everything):
            leaves = sorted({name.rsplit(".", 1)[-1] for name in modules.everything})
            leaves = [leaf for leaf in leaves if not leaf.isdigit()]
            raise ConfigError(
                f"lora.modules_to_save: {wanted} matches no module of this model."
                f"{did_you_mean(wanted, leaves)} There are: {', '.join(leaves)}."
            )


def _ends_with(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")
