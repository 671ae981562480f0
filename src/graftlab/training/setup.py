"""What is settled before the base is loaded: place, precision, tokens, rows, steps."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from graftlab.adapters.attach import check_lora
from graftlab.console import say
from graftlab.data.rejects import refused_row, write_rejects
from graftlab.data.takes import KINDS, require_kinds
from graftlab.errors import ConfigError, counted
from graftlab.registry import name_of
from graftlab.text.encode import encode
from graftlab.training.anchors import mixed_in
from graftlab.training.answers import answers_of
from graftlab.training.callbacks.spec import Rows
from graftlab.training.precision import Resolved, resolve
from graftlab.training.process_context import ProcessContext
from graftlab.training.step_plan import StepPlan, plan_steps
from graftlab.training.teacher import check_pair

if TYPE_CHECKING:
    from graftlab.text.encode import TokenSet
    from graftlab.text.tokenizer import Tokenizer
    from graftlab.tracking.folder import RunFolder
    from graftlab.training.callbacks.spec import Measurer
    from graftlab.training.spec import TrainSpec
    from graftlab.types import Conversation


@dataclass(frozen=True, slots=True)
class Data:
    """Both sets as tokens, and the conversations that are sampled from."""

    tokenizer: Tokenizer
    train: TokenSet
    valid: TokenSet | None
    prompts: list[Conversation]
    measurers: dict[str, Measurer] = field(default_factory=dict)
    """By the key of the callback that made it."""

    @property
    def fingerprint(self) -> str:
        return self.train.fingerprint + (self.valid.fingerprint if self.valid else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A run as it stands before it costs anything."""

    spec: TrainSpec
    folder: RunFolder
    place: ProcessContext
    precision: Resolved
    data: Data
    plan: StepPlan

    @property
    def writes(self) -> bool:
        """Whether this is the process that talks and writes."""
        return self.place.rank == 0


def resolve_setup(spec: TrainSpec, folder: RunFolder, *, prompts: int | None = None) -> Setup:
    """Check the targets, read the data and count the steps; `prompts` to sample from are kept.

    Raises ConfigError, DataError or ModelError for what people can mend.
    """
    place = ProcessContext.resolve(spec)
    precision = resolve(spec.precision, place.device)
    check_lora(spec.model, spec.lora)
    if prompts is None:
        prompts = spec.callbacks.samples.prompts
    data = read_data(spec, folder, prompts=prompts, place=place)
    check_validation(spec, data, tell=place.rank == 0)
    plan = plan_steps(spec, data.train, data.valid, rank=place.rank, world_size=place.world_size)
    return Setup(spec=spec, folder=folder, place=place, precision=precision, data=data, plan=plan)


def resolve_setup_like(first: Setup, spec: TrainSpec, folder: RunFolder) -> Setup:
    """`resolve_setup` for a run that shares place, precision, data and rows with `first`.

    Its loaders are those of `first`: only one of the two may be iterated at a time. Raises
    ConfigError where the targets match nothing, or the objective learns from other data.
    """
    check_lora(spec.model, spec.lora)
    if spec.objective.takes != first.spec.objective.takes:
        name, shared = name_of(spec.objective), KINDS[first.spec.objective.takes]
        raise ConfigError(
            f"objective={name} learns from {KINDS[spec.objective.takes]}, and the data holds "
            f"{shared}, which objective={name_of(first.spec.objective)} learns from."
        )
    check_validation(spec, first.data, tell=False)
    rejects = first.folder.path / "rejects.jsonl"
    if rejects.exists() and folder.path != first.folder.path:
        shutil.copyfile(rejects, folder.path / "rejects.jsonl")
    prompts = first.data.prompts[: spec.callbacks.samples.prompts]
    return replace(
        first,
        spec=spec,
        folder=folder,
        data=replace(first.data, prompts=prompts),
        plan=first.plan.like(spec),
    )


def check_validation(spec: TrainSpec, data: Data, *, tell: bool) -> None:
    """Say that there are no validation documents where some were asked for.

    Raises ConfigError where something waits for their loss.
    """
    if data.valid is not None and len(data.valid):
        return
    if data.valid is not None:
        limit = f"packing.max_length={spec.packing.max_length}"
        why = f"all validation documents ({len(data.valid.dropped)}) are longer than {limit}"
    elif spec.data.valid:
        why = f"data.valid={spec.data.valid} holds no row that can be used"
    else:
        why = f"data.valid_fraction={spec.data.valid_fraction} holds none out"
    waiting = spec.objective.key_needing_validation()
    if waiting is not None:
        raise ConfigError(
            f"objective.{waiting} is measured on held-out rows, and {why}. Give more or shorter "
            f"data to hold out, or leave objective.{waiting} out."
        )
    for key in spec.callbacks.waiting if spec.ranking.is_loss else ():
        raise ConfigError(
            f"callbacks.{key} waits for a validation loss, and {why}. Give more or shorter data to "
            f"hold out, or leave {key.replace('_', '-')} out of callbacks=[...]; "
            "callbacks=[default,plateau] watches the training loss."
        )
    if tell and (data.valid is not None or spec.data.valid):
        say(f"! There will be no validation loss: {why}.")


def read_data(spec: TrainSpec, folder: RunFolder, *, prompts: int, place: ProcessContext) -> Data:
    """Conversations, checked and encoded; the log says what was recognised, dropped and refused.

    A teacher must have the same tokenizer, and answers the prompts itself where the objective says.
    """
    tokenizer, tell = spec.model.load_tokenizer(), place.rank == 0
    tokenizer.date = spec.date
    check_pair(spec.objective, tokenizer)
    taught = answers_of(spec, folder, tokenizer, place)
    rejects = folder.path / "rejects.jsonl"
    dataset = spec.data.load(reserved=tokenizer.reserved, rejects=rejects)
    name, takes = name_of(spec.objective), spec.objective.takes
    require_kinds(dataset.train, dataset.valid, takes=takes, objective=name)
    refused: set[str] = set()

    def tokens(conversations: Sequence[Conversation], name: str) -> TokenSet:
        if taught is not None:
            conversations = taught.to(conversations, name)
        encoded = encode(
            conversations,
            tokenizer,
            max_length=spec.packing.max_length,
            over_limit=spec.data.over_limit,
            on_invalid=spec.data.on_invalid,
            train_turns=spec.data.train_turns if taught is None else "last",
            train_on=spec.data.train_on,
            share_prompts=spec.packing.share_prompts,
            progress=tell,
        )
        refused.update(conversations[one.index].where for one in encoded.refused)
        if tell:
            _tell(encoded, name, spec.packing.max_length)
            leave_out(encoded, conversations)
        return encoded

    def leave_out(encoded: TokenSet, conversations: Sequence[Conversation]) -> None:
        """List them behind the rows that could not be read."""
        rows = [refused_row(conversations[one.index], one.reason) for one in encoded.refused]
        if rows:
            write_rejects(rejects, rows, append=dataset.rejected > 0)
            dataset.rejected += len(rows)

    for note in dataset.notes if tell else ():
        say(note)
    train = mixed_in(spec, tokens(dataset.train, "train"), tokenizer, tell=tell)
    valid = tokens(dataset.valid, "valid") if dataset.valid else None
    asked = [one for one in dataset.valid if one.where not in refused]
    rows = Rows(
        train=dataset.train,
        valid=asked,
        tokenizer=tokenizer,
        generation=spec.generation,
        data=spec.data,
    )
    made = {key: own.measurer(rows) for key, own in sorted(spec.callbacks.chosen.items())}
    measurers = {key: one for key, one in made.items() if one is not None}
    return Data(tokenizer, train, valid, asked[:prompts], measurers)


def _tell(encoded: TokenSet, name: str, max_length: int) -> None:
    """Say what was left out of a set, and why."""
    if encoded.refused:
        say(
            f"{name}: {counted(len(encoded.refused), 'row')} left out (data.on_invalid=skip), "
            "listed in rejects.jsonl: the chat template or the tokenizer refuses it, such as "
            f"{encoded.refused[0].reason}"
        )
    if encoded.dropped:
        say(
            f"{name}: {counted(len(encoded.dropped), 'document')} longer than "
            f"packing.max_length={max_length} dropped, such as "
            f"{encoded.dropped[0].where}: {encoded.dropped[0].said}."
        )
    if encoded.note is not None:
        say(f"! {encoded.note}")
