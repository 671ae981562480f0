"""What a tuning leaves beside its runs: tune.json, and the proposal as an experiment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graftlab.files.writing import write_atomic
from graftlab.reports.tuned import FILE
from graftlab.reports.winner import Experiment
from graftlab.tracking.ranking import Ranking
from graftlab.tuning.proposal import Proposal

SIGN = "# Written by `graftlab tune`"
NAME = "tuned"


@dataclass(frozen=True, slots=True)
class Tuned(Experiment):
    """The proposal as an experiment file."""

    proposal: Proposal
    folder: Path
    reasons: Mapping[str, str]
    """Key or group -> why it has its value, of those that were not tuned."""

    @property
    def head(self) -> list[str]:
        regret = self.proposal.regret
        return [
            f"{SIGN} in {self.folder}.",
            f"# Expected regret {regret.middle:.4f} ({regret.low:.4f} to {regret.high:.4f}, 90 % "
            f"interval) against the best of {self.proposal.cells}.",
        ]

    def source(self, key: str) -> str:
        for profile in self.proposal.profiles:
            if profile.key == key:
                chosen = self.proposal.values[key]
                others = [cost.middle for v, cost in profile.values.items() if v != chosen]
                return f"best of {', '.join(profile.values)}; the next costs {min(others):+.4f}"
        while key not in self.reasons and key:
            key = key.rpartition(".")[0]
        return self.reasons.get(key, "as in every run")


def write_json(found: Proposal, folder: Path, ranking: Ranking) -> None:
    """`tune.json`: everything that was found, as numbers."""
    content: dict[str, Any] = asdict(found)
    content["cell"] = {"config": list(found.cell.config), "steps": found.cell.steps}
    content |= {"compared_by": ranking.by, "better": ranking.better, "gain": found.gain}
    text = json.dumps(content, indent=2, ensure_ascii=False)
    write_atomic(folder / FILE, f"{text}\n")
