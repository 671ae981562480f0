"""What Apple's model adds to graftlab; found by the registry, named by nobody."""

from __future__ import annotations

from graftlab.adapters import tamm
from graftlab.adapters.attach import register_adapters
from graftlab.adapters.store import register_checkpoint
from graftlab.adapters.toolkit import SUFFIX, ToolkitSource
from graftlab.models import afm_files
from graftlab.models.afm import AFMModel
from graftlab.models.afm_base import AFMBase
from graftlab.models.afm_mini import AFMMini
from graftlab.models.folder import register_model_folder
from graftlab.text.afm import recognise
from graftlab.text.load import register_tokenizer

__all__ = ["AFMMini", "AFMModel"]

register_tokenizer(recognise)
register_adapters(AFMModel, AFMBase, check=tamm.check, attach=tamm.attach, load=tamm.load_adapter)
register_checkpoint(SUFFIX, ToolkitSource)
register_model_folder(afm_files.WEIGHTS, lambda folder: AFMModel(path=str(folder)))
