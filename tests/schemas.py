"""Schemas of every kind that replies are held to, and a model that knows nothing of any."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def closed(**properties: Any) -> dict[str, Any]:
    """An object that requires all of these and has nothing else."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


TEXT = {"type": "string"}

SCHEMAS: dict[str, dict[str, Any]] = {
    "nested": closed(
        track=closed(title=TEXT, artist=closed(name=TEXT, born=closed(year={"type": "integer"}))),
        mood={"type": ["string", "null"]},
    ),
    "optional": {
        "type": "object",
        "properties": {f"p{index}": TEXT for index in range(12)},
        "required": ["p5", "p11"],
        "additionalProperties": False,
    },
    "enum": closed(
        colour={"enum": ["red", "green", "a colour with a long name", 3, None]},
        kind={"const": "track"},
    ),
    "array": closed(
        few={"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2, "maxItems": 3},
        pair={"type": "array", "prefixItems": [TEXT, {"type": "boolean"}], "minItems": 2},
        any={"type": "array", "items": {"type": "array", "items": TEXT}},
    ),
    "numbers": closed(
        whole={"type": "integer", "minimum": 12, "maximum": 345},
        part={"type": "number", "exclusiveMinimum": 0.5, "maximum": 0.75},
        step={"type": "number", "minimum": 0, "multipleOf": 0.25},
        below={"type": "integer", "maximum": -3},
    ),
    "strings": closed(
        code={"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
        loop={"type": "string", "pattern": "^a*b(cd)+$"},
        long={"type": "string", "minLength": 12, "maxLength": 20},
        day={"type": "string", "format": "date"},
    ),
    "recursive": {
        "$defs": {
            "node": closed(
                value={"type": "number"},
                children={"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 3},
            )
        },
        "$ref": "#/$defs/node",
    },
    "branches": {
        "anyOf": [
            closed(kind={"const": "list"}, items={"type": "array", "items": {"type": "integer"}}),
            closed(kind={"const": "big"}, **{name: {**TEXT, "minLength": 3} for name in "abcdef"}),
            {"type": "array", "items": {"anyOf": [{"type": "null"}, TEXT]}, "minItems": 3},
        ]
    },
    "map": {"type": "object", "additionalProperties": {"type": "number"}, "minProperties": 1},
    "open": {"type": "object", "properties": {"name": TEXT}, "required": ["name", "other"]},
}
"""Name -> schema; a reply that a model of random numbers gives follows none of them."""


def random_logits(width: int, generator: torch.Generator) -> Tensor:
    """(V,): what a model says that has learnt nothing, and is sure of it."""
    return torch.randn(width, generator=generator) * 3
