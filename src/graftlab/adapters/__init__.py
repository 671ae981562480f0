"""What is trainable: LoRA and its relatives, through PEFT."""
