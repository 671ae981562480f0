"""The verb `inspect`: the tokens as the model will see them, the packing, the token budget.

Run as:  graftlab inspect model=hf model.path=DIR data=jsonl data.train=FILE objective=dpo
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graftlab.console import console as terminal
from graftlab.data.source import DataSpec
from graftlab.errors import DataError, counted, require_choice, require_range
from graftlab.exports.contract.compare import RUNTIMES
from graftlab.models.base import ModelSpec
from graftlab.objectives.base import Objective
from graftlab.packing.plan import Packing
from graftlab.recipes.dataset import ensure_dataset

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from graftlab.data.budget import Budget, Spread
    from graftlab.data.source import Dataset
    from graftlab.exports.contract.compare import Contract
    from graftlab.text.encode import TokenSet
    from graftlab.text.show import Branch
    from graftlab.text.tokenizer import Tokenizer
    from graftlab.types import Conversation

_NO_LIMIT = 2**31 - 1
_ROWS_DRAWN, _ROW_WIDTH = 8, 40
_REFUSED = 5


@dataclass(kw_only=True, slots=True)
class InspectSpec:
    """`graftlab inspect model=hf model.path=DIR data=jsonl data.train=FILE`."""

    model: ModelSpec
    data: DataSpec
    objective: Objective
    packing: Packing = field(default_factory=Packing)
    batch_size: int = 1
    """Packed rows per micro-batch."""
    accumulate: int = 1
    """Micro-batches per optimizer step."""
    lr: float = 1e-3
    """Not used: data=demo sets it for training, and both verbs take the same choices."""
    rows: int = 2
    """Conversations shown token by token."""
    contract: list[str] = field(default_factory=list)
    """Runtimes whose prompts are compared with the trained ones: ollama, llama.cpp, mlx, vllm."""

    def __post_init__(self) -> None:
        require_range("batch_size", self.batch_size, least=1)
        require_range("accumulate", self.accumulate, least=1)
        require_range("rows", self.rows, least=0)
        for runtime in self.contract:
            require_choice("contract", runtime, RUNTIMES)


@dataclass(frozen=True, slots=True)
class Shown:
    """One document, token by token."""

    where: str
    branches: list[Branch]
    tools: list[str]
    """Names of the tools that may be called."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What `inspect` found in the training data."""

    notes: list[str]
    shown: list[Shown]
    spreads: list[Spread]
    budget: Budget
    lengths: np.ndarray  # (n,) tokens of the documents within the limit
    plan: list[list[int]]  # documents per packed row
    longest: list[tuple[str, int]]  # documents over the limit: where, tokens
    contracts: list[Contract]  # what each runtime of `contract` makes of the prompts


def run(spec: InspectSpec, *, console: Console | None = None) -> Inspection:
    """Read, encode and plan the configured data, and print it; the weights are never touched.

    Raises ConfigError, DataError or ModelError as training would, but for documents over the limit,
    which are counted, and for rows that the objective does not learn from, which are told.
    """
    spec.data.check()
    ensure_dataset(spec.data)
    found = look(spec)
    show(found, console or terminal())
    return found


def look(spec: InspectSpec) -> Inspection:
    """The inspection without printing."""
    from graftlab.data.budget import budget, spreads
    from graftlab.data.calls import name_of
    from graftlab.packing.plan import plan_rows
    from graftlab.text.encode import encode
    from graftlab.text.show import shown_branches
    from graftlab.text.tool_list import parts_with_tools
    from graftlab.training.auto import resolve_packing

    settled = resolve_packing(spec.packing, spec.model)
    tokenizer = spec.model.load_tokenizer()
    data = spec.data.load(reserved=tokenizer.reserved)
    turns, limit = spec.data.train_turns, spec.packing.max_length
    tokens = encode(
        data.train,
        tokenizer,
        max_length=_NO_LIMIT,
        on_invalid=spec.data.on_invalid,
        train_turns=turns,
        train_on=spec.data.train_on,
        share_prompts=spec.packing.share_prompts,
        row_length=limit,
        progress=True,
    )
    inside = tokens.lengths <= limit
    lengths, num_labels = tokens.lengths[inside], tokens.num_labels[inside]
    plan = plan_rows(lengths.tolist(), spec.packing)

    def where(document: int) -> str:
        return data.train[int(tokens.sources[document])].where

    over = [(where(i), int(tokens.lengths[i])) for i in (~inside).nonzero()[0]]
    return Inspection(
        notes=[
            *(*settled, *tokenizer.notes, *data.notes),
            *_notes(tokens, data.train),
            *_objective_notes(spec.objective, data),
        ],
        shown=[
            Shown(
                where(i),
                shown_branches(tokens[i], tokenizer),
                [str(name_of(tool)) for tool in data.train[int(tokens.sources[i])].tools],
            )
            for i in range(min(spec.rows, len(tokens)))
        ],
        spreads=spreads(parts_with_tools(tokens, data.train, tokenizer)),
        budget=budget(
            lengths,
            num_labels,
            plan,
            max_length=limit,
            batch_size=spec.batch_size,
            accumulate=spec.accumulate,
            over_limit=len(over),
        ),
        lengths=lengths,
        plan=plan,
        longest=sorted(over, key=lambda item: -item[1]),
        contracts=_contracts(spec, data, tokenizer) if spec.contract else [],
    )


def _contracts(spec: InspectSpec, data: Dataset, tokenizer: Tokenizer) -> list[Contract]:
    from graftlab.exports.contract.compare import compare

    folder = getattr(spec.model, "folder", None)  # a GGUF file says itself where answers end
    return compare(spec.contract, data.train, tokenizer, folder() if folder else None)


def _notes(tokens: TokenSet, conversations: Sequence[Conversation]) -> list[str]:
    """What there is to say of the encoding."""
    notes = [tokens.note] if tokens.note else []
    for one in tokens.refused[:_REFUSED]:
        notes.append(f"left out: {conversations[one.index].where}: {one.reason}")
    if (more := len(tokens.refused) - _REFUSED) > 0:
        notes.append(f"left out: {more} more rows (data.on_invalid=skip)")
    return notes


def _objective_notes(objective: Objective, data: Dataset) -> list[str]:
    """Whether training refuses the data, with the remedy, and what it puts in place of it."""
    from graftlab.data.takes import require_kinds
    from graftlab.registry import name_of

    notes, name = [], name_of(objective)
    try:
        require_kinds(data.train, data.valid, takes=objective.takes, objective=name)
    except DataError as error:
        notes.append(f"! Training refuses this data: {error}")
    if objective.uses_teacher_answers():
        notes.append("! Training puts the teacher's own answers in place of these.")
    if objective.anchor_data() is not None:
        notes.append("! Training mixes in the rows of objective.anchors, not counted here.")
    return notes


def show(found: Inspection, console: Console) -> None:
    """Print notes, tokens, the packing layout and the budget."""
    from rich.text import Text

    from graftlab.text.show import as_text

    for note in found.notes:
        console.print(note, style="dim", markup=False, highlight=False)
    colour = console.is_terminal and not console.no_color
    for shown in found.shown:
        tokens = [token for branch in shown.branches for token in branch.tokens]
        trained = sum(weight > 0 for _, weight in tokens)
        legend = "green" if colour else "in ⟦ ⟧"
        title = f"{shown.where}: {trained} of {len(tokens)} tokens trained ({legend})"
        console.print(Text(title, style="bold"), soft_wrap=True)
        if shown.tools:
            console.print(Text(f"tools: {', '.join(shown.tools)}", style="dim"), soft_wrap=True)
        for branch in shown.branches:
            if branch.name:
                console.print(Text(f"{branch.name}:", style="bold"))
            console.print(as_text(branch.tokens, colour=colour), soft_wrap=not colour)
    console.rule("packing")
    console.print(layout(found.plan, found.lengths, found.budget.max_length))
    console.rule("token budget")
    console.print(_spread_table(found.spreads))
    console.print(_budget_table(found.budget))
    for where, count in found.longest[:5]:
        console.print(f"over the limit: {where} has {count} tokens", markup=False, highlight=False)
    if found.contracts:
        console.rule("prompts of runtimes")
    for line in (line for contract in found.contracts for line in contract.lines()):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def layout(plan: Sequence[Sequence[int]], lengths: np.ndarray, max_length: int) -> Text:
    """Packed rows drawn to scale, evenly chosen from the plan: a letter per document, dots free.

    A document too short for a cell of its own still gets one.
    """
    from rich.text import Text

    text = Text(no_wrap=True)
    chosen = range(0, len(plan), max(1, -(-len(plan) // _ROWS_DRAWN)))
    for number in chosen:
        row = plan[number]
        cells = ""
        for place, document in enumerate(row):
            width = max(1, round(int(lengths[document]) / max_length * _ROW_WIDTH))
            cells += chr(ord("A") + place % 26) * width
        used = sum(int(lengths[document]) for document in row)
        drawn = cells[:_ROW_WIDTH].ljust(_ROW_WIDTH, "·")
        text.append(f"{number:>6}  {drawn}  {used}/{max_length}, {counted(len(row), 'document')}\n")
    if len(chosen) < len(plan):
        text.append(f"        {len(chosen)} of {len(plan)} rows drawn\n")
    return text


def _spread_table(spreads: Sequence[Spread]) -> Table:
    from rich.table import Table

    table = Table("tokens per document", box=None, pad_edge=False)
    for name in ("median", "mean", "p75", "p95", "max"):
        table.add_column(name, justify="right")
    for spread in spreads:
        values = (spread.median, spread.mean, spread.p75, spread.p95, spread.max)
        table.add_row(spread.part, *(f"{value:,.0f}" for value in values))
    return table


def _budget_table(budget: Budget) -> Table:
    from rich.table import Table

    share = budget.trained_tokens / budget.tokens if budget.tokens else 0.0
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    limit = f"longer than packing.max_length={budget.max_length}"
    rows = [
        ("documents", f"{budget.documents:,}", ""),
        ("over the limit", f"{budget.over_limit:,}", limit),
        ("tokens per epoch", f"{budget.tokens:,}", f"{share:.0%} of them trained"),
        ("packed rows", f"{budget.rows:,}", f"{budget.density:.1%} full"),
        ("samples per row", f"{budget.documents_per_row:.2f}", ""),
        ("effective batch", f"{budget.effective_batch:.1f}", "documents per optimizer step"),
        ("tokens per step", f"{budget.tokens_per_step:,.0f}", ""),
        ("trained per step", f"{budget.trained_tokens_per_step:,.0f}", "tokens"),
        ("steps per epoch", f"{budget.steps_per_epoch:,}", ""),
        ("packing saves", f"{budget.gain_over_max_length:.2f}x", "over padding to max_length"),
        ("", f"{budget.gain_over_batch:.2f}x", "over padding within the batch"),
    ]
    for row in rows:
        table.add_row(*row)
    return table
