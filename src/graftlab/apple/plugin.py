"""What Apple's model adds to the groups of graftlab; found by the registry, named by nobody."""

from __future__ import annotations

from graftlab.models.afm import AFMModel
from graftlab.models.afm_mini import AFMMini

__all__ = ["AFMMini", "AFMModel"]
