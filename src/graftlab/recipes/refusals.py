"""A language model that speaks of itself instead of answering, known by its openings."""

from __future__ import annotations

import re

_SELF = (
    r"(?:an? )?(?:large |helpful )?"
    r"(?:AI|artificial intelligence|language model|virtual assistant)\b"
)
_DECLINED = (
    r"(?:help|assist|provide|comply|fulfil|fulfill|rewrite|generate|answer|create|produce|continue"
    r"|participate|engage|discuss|share|offer|do that|do this|support|process|complete|write)"
)
_APOLOGY = (
    r"(?:(?:I'?m|I am)(?: very| so| really)? sorry|sorry|I apologi[sz]e|apologies|unfortunately)"
)
_ANYWHERE = re.compile(rf"\b(?:as {_SELF}|I(?: am|'m) (?:just |only )?{_SELF})", re.I)
_OPENING = re.compile(
    rf"\W*(?:{_APOLOGY}\b[^.!?\n]{{0,40}}?[,.;:—-]*\s*(?:but\s+)?(?:as {_SELF},?\s*)?)?"
    rf"I(?: cannot| can not| can't| won't| will not| am unable to| am not able to|'m unable to"
    rf"|'m not able to| must decline to| must refuse to| do not feel comfortable)\b"
    rf"[^.!?\n]{{0,30}}?\b{_DECLINED}\b",
    re.I,
)


def refusal_in(text: str) -> str:
    """The words by which `text` refuses, or ""; looks at the beginning, where models say it.

    "I am an AI", "As a language model", "I'm sorry, but I cannot help with that"; a narrator who
    "cannot describe" something is none.
    """
    text = text.strip().replace("’", "'")
    match = _OPENING.match(text) or _ANYWHERE.search(text[:300])
    return " ".join(match.group().split()) if match else ""
