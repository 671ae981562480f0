"""A merged model as one GGUF file: `target=gguf`.

target       the choice and its keys
merging      base and adapter as one model's parameters, whatever the base's files hold
describing   what a file's header says of the model: the inverse of models/gguf/families and rope
vocabulary   what it says of the tokenizer: the inverse of models/gguf/vocabulary
kinds        the type of each tensor; quantising: values become blocks
importance   what weighs the errors of rounding; inputs: how it is found out
writing      the file, one tensor in memory at a time; program: or by llama-quantize
"""

from graftlab.exports.gguf.target import GGUF

__all__ = ["GGUF"]
