"""What makes the shipped assets from nothing: text, tokenizers, two small bases, demo data.

Not installed with the package. Run as: make base
"""

from pathlib import Path

import graftlab

PACKAGE = Path(graftlab.__file__).parent
SHIPPED = PACKAGE / "assets"
"""Where the package keeps what is made here."""
