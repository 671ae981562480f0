"""The two words that train, with the toolkit's flags and defaults.

A default is written down only where graftlab's own is another (or none): the rest are equal, and a
test says so.
"""

from __future__ import annotations

from graftlab.apple.toolkit.command import MODEL_FLAGS, Command
from graftlab.apple.toolkit.flags import Flag, number, precision, whole
from graftlab.apple.toolkit.more import draft_run_words, model_words, run_words, student_words

INSTRUCTION = "A conversation between a user and a helpful assistant."
"""What the base was tuned with in front of every system prompt."""


_DATA = (
    Flag(
        name="train-data",
        meaning="conversations to train on, JSONL",
        words=("data.train={}",),
        required=True,
    ),
    Flag(
        name="eval-data",
        meaning="conversations to validate on; without it nothing is held out",
        words=("data.valid={}",),
        otherwise=("data.valid_fraction=0",),
    ),
)
_LEARNING = (
    Flag(
        name="epochs",
        meaning="passes over the data",
        words=("epochs={}",),
        read=whole,
        default="2",
    ),
    Flag(
        name="learning-rate",
        meaning="peak learning rate; 1e-4 where 1e-3 diverges",
        words=("lr={}",),
        read=number,
        default="1e-3",
    ),
    Flag(
        name="warmup-epochs",
        meaning="epochs of linear warm-up",
        words=("schedule.warmup_ratio=null", "schedule.warmup_epochs={}"),
        keys="schedule.warmup_epochs",
        read=number,
        default="1",
    ),
    Flag(
        name="batch-size",
        meaning="rows per micro-batch, packed or not",
        words=("batch_size={}",),
        read=whole,
        default="4",
    ),
    Flag(
        name="gradient-accumulation-steps",
        meaning="micro-batches per optimizer step",
        words=("accumulate={}",),
        read=whole,
    ),
    Flag(
        name="weight-decay",
        meaning="decoupled weight decay",
        words=("optimizer.weight_decay={}",),
        read=number,
    ),
    Flag(
        name="clip-grad-norm",
        meaning="largest norm of the gradient",
        words=("optimizer.clip_norm={}",),
        read=number,
    ),
)
_ROWS = (
    Flag(
        name="max-sequence-length",
        meaning="longest row in tokens, at most the 4096 that the base has room for",
        words=("packing.max_length={}",),
        read=whole,
        default="4096",
    ),
    Flag(
        name="pack-sequences",
        meaning="several conversations a row, which do not see each other",
        words=("packing=best-fit",),
        otherwise=("packing=none",),
        keys="packing",
        switch=True,
    ),
    Flag(
        name="fixed-sized-sequences",
        meaning="pad every row to the longest length",
        switch=True,
        note="rows are padded only as far as their batch needs, and nothing here wants more",
    ),
)
_COMPUTE = (
    Flag(
        name="activation-checkpointing",
        meaning="less memory, more time",
        words=("model.gradient_checkpointing=true",),
        keys="model.gradient_checkpointing",
        switch=True,
    ),
    Flag(
        name="compile-model",
        meaning="compile the layers",
        switch=True,
        note="compiling tamm's layers takes longer than it can save, so they are not",
    ),
    Flag(
        name="loss-update-frequency",
        meaning="optimizer steps between two logged losses",
        words=("trainer.log_every={}",),
        read=whole,
    ),
)
_SAVING = (
    Flag(
        name="checkpoint-dir",
        meaning="where the run's folder lies, with the toolkit's checkpoints beside it",
        keys="hydra.run.dir",
    ),
    Flag(
        name="checkpoint-frequency",
        meaning="epochs between two checkpoints",
        words=("checkpoint.every_epochs={}",),
        read=whole,
    ),
    Flag(
        name="resume",
        meaning="ours: go on with the run in --checkpoint-dir, if it was cut short",
        words=("resume=auto",),
        keys="resume",
        switch=True,
    ),
    Flag(
        name="seed",
        meaning="ours: data order, dropout and initialisation",
        words=("seed={}",),
        read=whole,
    ),
)

TRAIN_ADAPTER = Command(
    name="train-adapter",
    verb="train",
    meaning="train an adapter for Apple's on-device model",
    fixed=("lora=afm-r32", "data=jsonl", f"data.default_instruction={INSTRUCTION}"),
    flags=(
        *_DATA,
        *_LEARNING,
        *_ROWS,
        Flag(
            name="precision",
            meaning="f32, bf16-mixed, bf16 or f16-mixed",
            words=("precision={}",),
            read=precision,
            default="bf16-mixed",
        ),
        *_COMPUTE,
        *_SAVING,
        Flag(
            name="lora-rank",
            meaning="ours: another rank at the same scale; only 32 is proven on a device",
            words=("lora.rank={}", "lora.alpha=null", "lora.scale=0.5"),
            keys="lora.rank",
            read=whole,
        ),
        *MODEL_FLAGS,
    ),
    more=(model_words, run_words),
)

TRAIN_DRAFT_MODEL = Command(
    name="train-draft-model",
    verb="train",
    meaning="distil a small model that drafts for a base with its adapter",
    fixed=(
        "experiment=draft",
        "objective.divergence=inverse",
        f"data.default_instruction={INSTRUCTION}",
    ),
    flags=(
        Flag(
            name="checkpoint",
            meaning="the adapter that the draft is to speak like",
            keys="objective.teacher",
            required=True,
        ),
        *_DATA,
        *_LEARNING,
        *_ROWS,
        Flag(
            name="draft-precision",
            meaning="f32, bf16-mixed, bf16 or f16-mixed",
            words=("precision={}",),
            read=precision,
            default="bf16-mixed",
        ),
        Flag(
            name="target-precision",
            meaning="of the teacher",
            read=precision,
            note="the teacher is frozen, and computes in the precision of --draft-precision",
        ),
        *_COMPUTE,
        *_SAVING,
        *MODEL_FLAGS,
    ),
    more=(student_words, draft_run_words),
)
