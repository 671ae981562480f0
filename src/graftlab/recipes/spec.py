"""What `prepare` is asked: the sources, the steps that each passes, and those of all together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from graftlab.errors import ConfigError, did_you_mean, require_range
from graftlab.recipes.curate import Curate
from graftlab.recipes.decontaminate import Decontaminate
from graftlab.recipes.dedupe import Dedupe
from graftlab.recipes.folder import check_out
from graftlab.recipes.guards import Guards
from graftlab.recipes.markdown import Markdown
from graftlab.recipes.mix import Mix
from graftlab.recipes.negative import NegativeGuard
from graftlab.recipes.persona import NEUTRAL, Persona
from graftlab.recipes.rewriters.base import NoRewriter, RewriterSpec
from graftlab.recipes.sources import SourceSpec
from graftlab.recipes.split import Split

JOINT = ("dedupe", "decontaminate", "split")
"""Fields that are steps for all sources together, in their order; `mix` comes last."""


@dataclass(kw_only=True, slots=True)
class PrepareSpec:
    """`graftlab prepare recipe=NAME corpus=FILE out=DIR`.

    A field whose class has `apply` is a step that `sources.NAME.steps` may name; one whose class
    has `records` is a set that `sources.NAME.make` may name.
    """

    corpus: Any = None
    """The files the recipe starts from: one, a list, a glob, or a folder of .txt."""
    out: str | None = None
    """The folder to make; an earlier result in it is replaced."""
    seed: int = 0
    """Seed of everything that is drawn: the order of rows, what the mix repeats or leaves out."""
    sources: dict[str, SourceSpec] = field(default_factory=dict)
    """Name -> where rows come from and which steps are theirs alone; a recipe sets them."""
    curate: Curate = field(default_factory=Curate)
    persona: Persona = field(default_factory=Persona)
    rewriter: RewriterSpec | None = None
    """Who makes the persona's neutral inputs; null is rewriter=none."""
    guards: Guards = field(default_factory=Guards)
    markdown: Markdown = field(default_factory=Markdown)
    negative: NegativeGuard = field(default_factory=NegativeGuard)
    dedupe: Dedupe = field(default_factory=Dedupe)
    decontaminate: Decontaminate = field(default_factory=Decontaminate)
    split: Split = field(default_factory=Split)
    mix: Mix = field(default_factory=Mix)

    def __post_init__(self) -> None:
        require_range("seed", self.seed, least=0)
        problems = list(_problems(self))
        if problems:
            raise ConfigError("\n".join(problems))

    def check(self) -> None:
        """Raise ConfigError unless every file is there and the result has a place."""
        self.check_inputs()
        check_out(self.out)

    def check_inputs(self) -> None:
        """Raise ConfigError unless every file is there.

        Steps in use that have a `check` of their own are asked as well.
        """
        for name, source in self.sources.items():
            source.check(name)
        named = {step for source in self.sources.values() for step in [*source.steps, source.make]}
        for name, part in _having(self, "check", without=("rewriter",)).items():
            if name in named or name in JOINT:
                part.check()
        if (rewriter := self.asked_rewriter) is not None:
            rewriter.check()

    def inputs(self) -> dict[str, list[Path]]:
        """The files that are read, by source; those of the step `decontaminate` under its name."""
        read = {name: s.paths(name) for name, s in self.sources.items() if s.make is None}
        return read | {"decontaminate": self.decontaminate.paths()}

    @property
    def makes_pairs(self) -> bool:
        """Whether a source passes the persona step."""
        return any("persona" in source.steps for source in self.sources.values())

    @property
    def asked_rewriter(self) -> RewriterSpec | None:
        """Who is asked for neutral inputs, if any are made."""
        wanted = self.makes_pairs and NEUTRAL in self.persona.variations
        return self.rewriter if wanted and not isinstance(self.rewriter, NoRewriter) else None

    def advice(self) -> str | None:
        """One line on the inputs that are left out and how to get them, or None."""
        others = [name for name in self.persona.variations if name != NEUTRAL]
        left_out = self.makes_pairs and NEUTRAL in self.persona.variations
        if not others or not left_out or self.asked_rewriter is not None:
            return None
        return (
            f"Inputs made of each text: {', '.join(others)}. Neutral ones "
            "come with rewriter=http rewriter.model=NAME, or rewriter=local rewriter.model=DIR."
        )

    def steps(self) -> dict[str, Any]:
        """The steps that a source may have, by name."""
        return _having(self, "apply", without=(*JOINT, "mix"))

    def makers(self) -> dict[str, Any]:
        """The sets that can be made instead of read, by name."""
        return _having(self, "records")


def _problems(spec: PrepareSpec) -> Iterator[str]:
    """What does not fit together, one line each."""
    if not spec.sources:
        yield "There is no source: choose a recipe (recipe=NAME) or give sources.NAME.files=FILE."
    steps, makers = spec.steps(), spec.makers()
    for name, source in spec.sources.items():
        for step in source.steps:
            if step not in steps:
                yield _unknown(f"sources.{name}.steps", step, steps)
        if source.make is not None and source.make not in makers:
            yield _unknown(f"sources.{name}.make", source.make, makers)
    if spec.mix.weights:
        for name in spec.mix.weights:
            if name not in spec.sources:
                yield _unknown("mix.weights", name, spec.sources)
        for name in spec.sources:
            if name not in spec.mix.weights:
                yield f"mix.weights gives {name} no weight: mix.weights.{name}=1, or 0 to leave out"


def _unknown(key: str, name: str, choices: dict[str, Any]) -> str:
    known = ", ".join(choices) or "none here"
    return f"{key}: `{name}` is not one of {known}.{did_you_mean(name, choices)}"


def _having(spec: PrepareSpec, method: str, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    values = {f.name: getattr(spec, f.name) for f in fields(spec) if f.name not in without}
    return {name: value for name, value in values.items() if hasattr(value, method)}
