"""Small data files for tests that train."""

from __future__ import annotations

import json
from pathlib import Path


def chats(path: Path, count: int) -> Path:
    """`count` short conversations of uneven length."""
    with path.open("w") as file:
        for number in range(count):
            words = " ".join(str(number * k % 7) for k in range(1, 3 + number % 5))
            turns = [("user", f"count to {number}"), ("assistant", words)]
            messages = [{"role": role, "content": content} for role, content in turns]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path
