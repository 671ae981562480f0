"""The table: every word of the toolkit with its flags, and what each is here.

A default is written down only where graftlab's own is another (or none): the rest are equal, and a
test says so.
"""

from __future__ import annotations

from functools import partial

from graftlab.apple.toolkit.flags import Command, Flag, number, precision, whole
from graftlab.apple.toolkit.more import (
    MODELS,
    adapter_words,
    draft_words,
    drawing_words,
    model_words,
    prompt_words,
    run_words,
    student_words,
)
from graftlab.apple.toolkit.places import ADAPTER_RUN, DRAFT_RUN

INSTRUCTION = "data.default_instruction=A conversation between a user and a helpful assistant."
"""What the base was tuned with in front of every system prompt."""
PRECISIONS = "f32, bf16-mixed, bf16 or f16-mixed"

MODEL = (
    Flag(
        "assets",
        "the toolkit's assets folder; else $GRAFTLAB_AFM_ASSETS, or ./assets",
        keys="model.path",
    ),
    Flag(
        "model",
        f"{' or '.join(MODELS)}, a miniature to try all this on; {MODELS[0]} if left out",
        keys="model",
    ),
)
DATA = (
    Flag("train-data", "conversations to train on, JSONL", "data.train={}", required=True),
    Flag(
        "eval-data",
        "conversations to validate on; without it nothing is held out",
        "data.valid={}",
        otherwise="data.valid_fraction=0",
    ),
)
LEARNING = (
    Flag("epochs", "passes over the data", "epochs={}", whole, "2"),
    Flag("learning-rate", "peak learning rate; 1e-4 where 1e-3 diverges", "lr={}", number, "1e-3"),
    Flag(
        "warmup-epochs",
        "epochs of linear warm-up",
        "schedule.warmup_ratio=null schedule.warmup_epochs={}",
        number,
        "1",
    ),
    Flag("batch-size", "rows per micro-batch, packed or not", "batch_size={}", whole, "4"),
    Flag("gradient-accumulation-steps", "micro-batches per optimizer step", "accumulate={}", whole),
    Flag("weight-decay", "decoupled weight decay", "optimizer.weight_decay={}", number),
    Flag("clip-grad-norm", "largest norm of the gradient", "optimizer.clip_norm={}", number),
)
ROWS = (
    Flag(
        "max-sequence-length",
        "longest row in tokens, at most the 4096 that the base has room for",
        "packing.max_length={}",
        whole,
        "4096",
    ),
    Flag(
        "pack-sequences",
        "several conversations a row, which do not see each other",
        "packing=best-fit",
        otherwise="packing=none",
        switch=True,
    ),
    Flag(
        "fixed-sized-sequences",
        "pad every row to the longest length",
        switch=True,
        note="rows are padded only as far as their batch needs, and nothing here wants more",
    ),
)
COMPUTE = (
    Flag(
        "activation-checkpointing",
        "less memory, more time",
        "model.gradient_checkpointing=true",
        switch=True,
    ),
    Flag(
        "compile-model",
        "compile the layers",
        switch=True,
        note="compiling tamm's layers takes longer than it can save, so they are not",
    ),
    Flag(
        "loss-update-frequency",
        "optimizer steps between two logged losses",
        "trainer.log_every={}",
        whole,
    ),
)
SAVING = (
    Flag(
        "checkpoint-dir",
        "where the run's folder lies, with the toolkit's checkpoints beside it",
        keys="hydra.run.dir",
    ),
    Flag(
        "checkpoint-frequency",
        "epochs between two checkpoints",
        "checkpoint.every_epochs={}",
        whole,
    ),
    Flag(
        "resume",
        "ours: go on with the run in --checkpoint-dir, if it was cut short",
        "resume=auto",
        switch=True,
    ),
    Flag("seed", "ours: data order, dropout and initialisation", "seed={}", whole),
)

TRAIN_ADAPTER = Command(
    name="train-adapter",
    verb="train",
    meaning="train an adapter for Apple's on-device model",
    fixed=("lora=afm-r32", "data=jsonl", INSTRUCTION),
    flags=(
        *(*DATA, *LEARNING, *ROWS),
        Flag("precision", PRECISIONS, "precision={}", precision, "bf16-mixed"),
        *(*COMPUTE, *SAVING),
        Flag(
            "lora-rank",
            "ours: another rank at the same scale; only 32 is proven on a device",
            "lora.rank={} lora.alpha=null lora.scale=0.5",
            whole,
        ),
        *MODEL,
    ),
    more=(model_words, partial(run_words, run=ADAPTER_RUN)),
)
TRAIN_DRAFT_MODEL = Command(
    name="train-draft-model",
    verb="train",
    meaning="distil a small model that drafts for a base with its adapter",
    fixed=("experiment=draft", "objective.divergence=inverse", INSTRUCTION),
    flags=(
        Flag(
            "checkpoint",
            "the adapter that the draft is to speak like",
            keys="objective.teacher",
            required=True,
        ),
        *(*DATA, *LEARNING, *ROWS),
        Flag("draft-precision", PRECISIONS, "precision={}", precision, "bf16-mixed"),
        Flag(
            "target-precision",
            "of the teacher",
            read=precision,
            note="the teacher is frozen, and computes in the precision of --draft-precision",
        ),
        *(*COMPUTE, *SAVING, *MODEL),
    ),
    more=(student_words, partial(run_words, run=DRAFT_RUN)),
)
GENERATE = Command(
    name="generate",
    verb="sample",
    meaning="answer prompts with an adapter",
    fixed=("compare=false",),
    flags=(
        Flag(
            "prompt",
            "a text, or a JSONL file of conversations",
            keys="prompt or prompts",
            required=True,
        ),
        Flag("checkpoint", "the adapter; without it the base answers alone", keys="adapter"),
        Flag("draft-checkpoint", "a draft model: the same replies, sooner", keys="draft"),
        Flag(
            "num-draft-tokens",
            "tokens drafted a round, 5 if left out",
            read=whole,
            keys="draft_tokens",
        ),
        Flag(
            "max-new-tokens", "longest reply in tokens", "generation.max_new_tokens={}", whole, "50"
        ),
        Flag("temperature", "0 is greedy", "generation.temperature={}", number, "1.0"),
        Flag(
            "top-k",
            "draw from the k likeliest tokens",
            read=whole,
            default="50",
            keys="generation.top_k",
        ),
        Flag("batch-size", "prompts answered at once", "batch={}", whole),
        Flag("precision", PRECISIONS, "precision={}", precision),
        Flag("seed", "ours: seed of the draw", "generation.seed={}", whole),
        *MODEL,
    ),
    more=(prompt_words, adapter_words, draft_words, drawing_words),
)
EXPORT_FMADAPTER = Command(
    name="export-fmadapter",
    verb="export",
    meaning="pack an adapter as a .fmadapter for OS 26",
    fixed=("target=fmadapter",),
    flags=(
        Flag("adapter-name", "letters, digits and underscores", "name={}", required=True),
        Flag("checkpoint", "the adapter", keys="adapter", required=True),
        Flag("output-dir", "folder to write NAME.fmadapter into", "out={}", required=True),
        Flag("draft-checkpoint", "a draft model", keys="target.draft"),
        Flag("author", "who made it", "target.author={}"),
        Flag("description", "what it is", "target.description={}"),
        *MODEL,
    ),
    more=(partial(adapter_words, needs_base=False), partial(draft_words, key="target.draft")),
)

COMMANDS = {
    command.name: command
    for command in (TRAIN_ADAPTER, TRAIN_DRAFT_MODEL, GENERATE, EXPORT_FMADAPTER)
}
"""All words of the toolkit, by name."""
