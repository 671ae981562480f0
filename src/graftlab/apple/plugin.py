"""What Apple's model adds to graftlab; found by the registry, named by nobody."""

from __future__ import annotations

from graftlab.models.afm import AFMModel
from graftlab.models.afm_mini import AFMMini
from graftlab.text.afm import recognise
from graftlab.text.load import register_tokenizer

__all__ = ["AFMMini", "AFMModel"]

register_tokenizer(recognise)
