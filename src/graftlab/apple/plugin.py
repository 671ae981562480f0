"""What Apple's model adds to graftlab; found by the registry, named by nobody."""

from __future__ import annotations

from graftlab.adapters.attach import register_adapters
from graftlab.adapters.store import register_checkpoint
from graftlab.apple.attach import attach, check, load_adapter
from graftlab.apple.base import AFMBase
from graftlab.apple.checkpoints import SUFFIX, ToolkitSource
from graftlab.apple.exports import afm7, peft
from graftlab.apple.exports.fmadapter import FMAdapter
from graftlab.apple.exports.mlpackage import MLPackage
from graftlab.apple.exports.source import TrainedAFM
from graftlab.apple.files import WEIGHTS
from graftlab.apple.model import AFMMini, AFMModel
from graftlab.apple.tokenizer import recognise
from graftlab.apple.toolkit.answer import answer
from graftlab.apple.toolkit.helps import SUMMARY, completions
from graftlab.commands import Command, register_command
from graftlab.exports.source import register_trained
from graftlab.models.folder import register_model_folder
from graftlab.text.load import register_tokenizer

__all__ = ["AFMMini", "AFMModel", "FMAdapter", "MLPackage", "afm7", "peft"]

register_tokenizer(recognise)
register_adapters(AFMModel, AFMBase, check=check, attach=attach, load=load_adapter)
register_checkpoint(SUFFIX, ToolkitSource)
register_model_folder(WEIGHTS, lambda folder: AFMModel(path=str(folder)))
register_trained(TrainedAFM)
register_command("toolkit", Command(summary=SUMMARY, answer=answer, completions=completions))
