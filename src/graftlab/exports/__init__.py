"""Adapters in the formats of other runtimes: `.fmadapter`, PEFT, MLX, Core ML; each read back."""
