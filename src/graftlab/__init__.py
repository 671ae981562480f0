"""graftlab: train LoRA adapters on a frozen language model, and prove what they learned."""

__version__ = "0.1.0"
