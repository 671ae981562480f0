"""Whether an adapter was trained on a base: by fingerprints, which a storage in codes changes too.

An adapter learns to make up for the rounding of the base under it. On the full-precision weights
one that was trained on nf4 is 0.31 nats (KL) from what it was, and 26 % of the most likely tokens
are others: about as far as training had moved it (a base of 135M parameters, 548 positions).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from graftlab.errors import GraftlabError, ModelError
from graftlab.models.quantization.base import Quantization
from graftlab.registry import choice_of, dump, restore

if TYPE_CHECKING:
    from graftlab.adapters.store import AdapterSource


def require_same_base(
    source: AdapterSource,
    name: str,
    fingerprint: str,
    *,
    as_stored: Callable[[Quantization], str],
    key: str | None = None,
    forced: bool = False,
) -> None:
    """Raise ModelError where an adapter was trained on another base than the one called `name`.

    `fingerprint` is that of the base as it is stored, `as_stored` says what it would be otherwise.

    Those that others made do not say it, and pass. So does one of the same files in another
    storage with `forced`, which people set by the key `key`.
    """
    trained_on = source.base_fingerprint()
    if trained_on in (None, fingerprint):
        return
    stored = stored_as(source)
    if stored is None or as_stored(stored) != trained_on:
        raise ModelError(
            f"{source.path} was trained on another base (fingerprint {trained_on}) than "
            f"{name} ({fingerprint}): what it says there would mean nothing. Take the "
            "base it was trained on."
        )
    if forced:
        return
    anyway = f", or {key}=true to take it all the same" if key else ""
    raise ModelError(
        f"{source.path} was trained on {name} stored by {in_words(stored)}, and here it is "
        "stored otherwise. An adapter makes up for the rounding of its base: on a 135M model one "
        "of nf4 was 0.31 nats off on the full-precision weights. Give "
        f"{in_words(stored)}{anyway}."
    )


def stored_as(source: AdapterSource) -> Quantization | None:
    """How the base of a run's adapter was stored; None where no run.yaml tells it."""
    model = source.run().get("model")
    if not isinstance(model, dict):
        return None
    try:
        described = model.get("quantization") or dump(Quantization())
        return restore(Quantization, described, path="model.quantization")
    except GraftlabError:
        return None


def in_words(stored: Quantization) -> str:
    """The words that ask for it, such as `quantization=nf4 quantization.double=true`."""
    keys = dump(stored)
    words = [f"quantization={choice_of(type(stored))}"]
    words += [f"quantization.{key}=true" for key in ("double", "head") if keys.get(key)]
    return " ".join(words)
