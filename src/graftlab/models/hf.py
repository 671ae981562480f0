"""A Hugging Face causal language model, from a folder or a hub id."""

from __future__ import annotations

from dataclasses import dataclass

from graftlab.models.base import ModelSpec


@dataclass(kw_only=True, slots=True)
class HFModel(ModelSpec):
    """`model=hf`: exactly one of `path` (a local folder) and `hub` (an id) is given."""

    path: str | None = None
    """Folder written by `save_pretrained` (safetensors)."""
    hub: str | None = None
    """Hub id; downloaded once into the Hugging Face cache."""
    revision: str | None = None
    """Commit, branch or tag of the hub id; pin a commit for runs that must repeat."""
    trust_remote_code: bool = False
    """Run Python code that ships with the model. Off unless you have read that code."""
