"""One process of a run of several: builds the run from the file its launcher wrote.

Started by torchrun (see `training/ranks.py`), which sets RANK, LOCAL_RANK and WORLD_SIZE.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from graftlab.choices import restore
from graftlab.errors import GraftlabError, Interrupted
from graftlab.tasks.train import TrainSpec, run


def main(file: str) -> int:
    """Train as `file` says; returns the exit code."""
    spec = restore(TrainSpec, json.loads(Path(file).read_text(encoding="utf-8")))
    try:
        run(spec)
    except Interrupted as stop:
        return stop.exit_code
    except GraftlabError as error:
        print(f"rank {os.environ.get('RANK')}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
