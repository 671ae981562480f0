"""All words of the toolkit, by name."""

from __future__ import annotations

from graftlab.apple.toolkit.training import TRAIN_ADAPTER, TRAIN_DRAFT_MODEL
from graftlab.apple.toolkit.using import EXPORT_FMADAPTER, GENERATE

COMMANDS = {
    command.name: command
    for command in (TRAIN_ADAPTER, TRAIN_DRAFT_MODEL, GENERATE, EXPORT_FMADAPTER)
}
