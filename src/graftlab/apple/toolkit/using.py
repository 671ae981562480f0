"""The two words that use what was trained: generate and export-fmadapter."""

from __future__ import annotations

from graftlab.apple.toolkit.command import MODEL_FLAGS, Command
from graftlab.apple.toolkit.flags import Flag, number, precision, whole
from graftlab.apple.toolkit.more import (
    adapter_words,
    draft_words,
    drawing_words,
    exported_words,
    prompt_words,
)

GENERATE = Command(
    name="generate",
    verb="sample",
    meaning="answer prompts with an adapter",
    fixed=("compare=false",),
    flags=(
        Flag(
            name="prompt",
            meaning="a text, or a JSONL file of conversations",
            keys="prompt or prompts",
            required=True,
        ),
        Flag(
            name="checkpoint",
            meaning="the adapter; without it the base answers alone",
            keys="adapter",
        ),
        Flag(
            name="draft-checkpoint",
            meaning="a draft model: the same replies, sooner",
            keys="draft",
        ),
        Flag(
            name="num-draft-tokens",
            meaning="tokens drafted a round, 5 if left out",
            keys="draft_tokens",
            read=whole,
        ),
        Flag(
            name="max-new-tokens",
            meaning="longest reply in tokens",
            words=("generation.max_new_tokens={}",),
            read=whole,
            default="50",
        ),
        Flag(
            name="temperature",
            meaning="0 is greedy",
            words=("generation.temperature={}",),
            read=number,
            default="1.0",
        ),
        Flag(
            name="top-k",
            meaning="draw from the k likeliest tokens",
            keys="generation.top_k",
            read=whole,
            default="50",
        ),
        Flag(
            name="batch-size",
            meaning="prompts answered at once",
            words=("batch={}",),
            read=whole,
        ),
        Flag(
            name="precision",
            meaning="f32, bf16-mixed, bf16 or f16-mixed",
            words=("precision={}",),
            read=precision,
        ),
        Flag(
            name="seed",
            meaning="ours: seed of the draw",
            words=("generation.seed={}",),
            read=whole,
        ),
        *MODEL_FLAGS,
    ),
    more=(prompt_words, adapter_words, draft_words, drawing_words),
)

EXPORT_FMADAPTER = Command(
    name="export-fmadapter",
    verb="export",
    meaning="pack an adapter as a .fmadapter for OS 26",
    fixed=("target=fmadapter",),
    flags=(
        Flag(
            name="adapter-name",
            meaning="letters, digits and underscores",
            words=("name={}",),
            required=True,
        ),
        Flag(
            name="checkpoint",
            meaning="the adapter",
            keys="adapter",
            required=True,
        ),
        Flag(
            name="output-dir",
            meaning="folder to write NAME.fmadapter into",
            words=("out={}",),
            required=True,
        ),
        Flag(
            name="draft-checkpoint",
            meaning="a draft model",
            keys="draft",
        ),
        Flag(name="author", meaning="who made it", words=("author={}",)),
        Flag(name="description", meaning="what it is", words=("description={}",)),
        *MODEL_FLAGS,
    ),
    more=(exported_words, draft_words),
)
