"""Holds a JSON document against docs/schema, strictly: no key missing, none undocumented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "schema"


def _closed(schema: Any) -> Any:
    """The schema with every object closed: a key that is not documented is an error here."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(item) for key, item in schema.items()}
    if isinstance(closed.get("properties"), dict) and closed.get("type") == "object":
        closed["additionalProperties"] = False
        assert set(closed["required"]) == set(closed["properties"]), "no key is ever missing"
    return closed


_SCHEMAS = {path.name: _closed(json.loads(path.read_text(encoding="utf-8"))) for path in FOLDER.glob("*.schema.json")}
_REGISTRY = Registry().with_resources((name, Resource.from_contents(schema)) for name, schema in _SCHEMAS.items())


def valid(document: dict[str, Any]) -> dict[str, Any]:
    """`document`, after it was held against the schema it names. Raises ValidationError."""
    name = document["schema"].removeprefix("smfix.").removesuffix("/1")
    schema = _SCHEMAS[f"{name}.schema.json"]
    Draft202012Validator(schema, registry=_REGISTRY, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(
        document
    )
    return document
