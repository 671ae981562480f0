"""The hand-written loop among the contestants: PEFT and stock SDPA, on packed or padded rows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, Any

from task import LEARNING_RATE, Report, Task, autocast, peft_model
from workload import MAX_LENGTH

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def plain_loop(task: Task, *, layout: str = "packed") -> Report:
    """A careful hand-written loop: PEFT, stock SDPA per document, logits only at labels.

    `layout` packed takes rows of whole documents; batch and max pad one document to a row, to the
    longest of the batch or to the longest allowed. Right padding needs no mask: attention is causal
    and padding has no label.
    """
    import torch
    from torch.nn import functional

    report = Report()
    model = peft_model(task, attention=_register_stock())
    head, body = model.base_model.model.lm_head, model.base_model.model.model
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
    batches = _batches(task, layout)
    for _ in range(task.steps):
        begun = task.now()
        ids, labels, positions, edges, useful = next(batches)
        with autocast(task):
            hidden = body(
                input_ids=ids, position_ids=positions, edges=edges, use_cache=False
            ).last_hidden_state
            labelled = labels != -100
            loss = functional.cross_entropy(head(hidden[labelled]).float(), labels[labelled])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        report.steps.append((useful, task.now() - begun))
    return report


def _batches(
    task: Task, layout: str
) -> Iterator[tuple[Tensor, Tensor, Tensor, list[int] | None, int]]:
    """(ids, labels, positions, document edges or None, useful tokens) of endless steps."""
    import torch

    rows = task.workload.rows()
    if layout != "packed":
        rows = [[document] for row in rows for document in row]
    endless = cycle(rows)
    while True:
        documents = [document for _ in range(task.batch_size) for document in next(endless)]
        lengths = [len(document) for document in documents]
        parts = [
            (torch.from_numpy(d.input_ids).long(), torch.from_numpy(d.labels).long())
            for d in documents
        ]
        if layout == "packed":
            ids, labels = (torch.cat(part)[None] for part in zip(*parts, strict=True))
            positions = torch.cat([torch.arange(length) for length in lengths])[None]
            edges = torch.tensor([0, *lengths]).cumsum(0).tolist()
        else:
            width = max(lengths) if layout == "batch" else MAX_LENGTH
            ids = torch.zeros(len(parts), width, dtype=torch.long)
            labels = torch.full_like(ids, -100)
            for row, (tokens, targets) in enumerate(parts):
                ids[row, : len(tokens)] = tokens
                labels[row, : len(tokens)] = targets
            positions, edges = torch.arange(width).expand_as(ids), None
        yield ids, labels, positions, edges, sum(lengths)


def _register_stock() -> str:
    """Stock SDPA, once per document; registered for transformers under the name returned."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention
    from transformers import AttentionInterface

    def stock(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        *,
        scaling: float | None = None,
        edges: list[int] | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        pieces = []
        bounds = edges or [0, query.shape[2]]
        for start, end in pairwise(bounds):
            q, k, v = (x[:, :, start:end] for x in (query, key, value))
            pieces.append(
                scaled_dot_product_attention(
                    q, k, v, is_causal=True, scale=scaling, enable_gqa=True
                )
            )
        return torch.cat(pieces, 2).transpose(1, 2).contiguous(), None

    AttentionInterface.register("stock_per_document", stock)
    return "stock_per_document"
