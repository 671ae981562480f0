"""The one list of bases: the choice of `model=` and the class that describes it.

A new base is a line here, a file with its dataclass, a YAML file in `conf/model/` and a test.
"""

from __future__ import annotations

from graftlab.models.afm import AFMModel
from graftlab.models.afm_mini import AFMMini
from graftlab.models.base import ModelSpec
from graftlab.models.draft import DraftModel
from graftlab.models.hf import HFModel
from graftlab.models.tiny import TinyModel

MODELS: dict[str, type[ModelSpec]] = {
    "afm-3b": AFMModel,
    "afm-mini": AFMMini,
    "draft": DraftModel,
    "hf": HFModel,
    "tiny": TinyModel,
}
