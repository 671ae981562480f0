"""Apple's on-device model: all that graftlab knows of it; `plugin` adds it to the other rooms.

model           the choices model=afm-3b and model=afm-mini
base            what they become: tamm's module, with our rotary and attention
context, draft  replies token by token; a small model that drafts for it
tokenizer       its template, and the instruction of every locale
files           the assets folder of Apple's toolkit
attach          adapters of tamm: made, initialised, loaded; targets and adapter beside it
checkpoints     the toolkit's own, and epoch_files, which writes them while it trains
exports/        .fmadapter, Core ML, and what PEFT and mlx-lm are told
toolkit/        `graftlab toolkit`: the toolkit's command line, said in ours
assets/         the miniature
"""
