"""Lambda's own specification as a judge: is this request one, is this answer one?

Holds the paths and schemas of API 1.10.0 (`tests/golden/lambda-openapi-1.10.0.json`). It is stricter than the letter:
a field of a request that the schema does not name is a fault too, since a misspelt field would otherwise pass.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

GOLDEN = Path(__file__).parent.parent / "golden" / "lambda-openapi-1.10.0.json"
JSON = "application/json"


class Operation(NamedTuple):
    """One method of one path; `raw` as the specification has it."""

    method: str
    template: str
    raw: dict[str, Any]


def faults_of_request(method: str, target: str, body: bytes | None) -> list[str]:
    """What is wrong with a request, nothing if it is as the specification wants.

    Args:
        method: GET, ... target: path with query. body: as sent; None or empty without one.
    """
    operation = find_operation(method, target)
    if operation is None:
        return [f"the specification has no {method} {urlsplit(target).path}"]
    faults = _faults_of_query(operation, urlsplit(target).query)
    wanted = operation.raw.get("requestBody")
    if not body:
        return [*faults, "the body is missing"] if wanted and wanted["required"] else faults
    if wanted is None:
        return [*faults, "a body where none belongs"]
    schema = wanted["content"][JSON]["schema"]
    return faults + _faults_of_json(schema, body, only_named=True)


def faults_of_answer(method: str, target: str, status: int, body: bytes) -> list[str]:
    """What is wrong with an answer; 429 and 500 to 599, of which the specification is silent, may be anything."""
    operation = find_operation(method, target)
    if operation is None:
        return [] if status == 404 else [f"the specification has no {method} {urlsplit(target).path}"]
    response = operation.raw["responses"].get(str(status))
    if response is None:
        passing = status == 429 or status >= 500
        return [] if passing else [f"{method} {operation.template} never answers {status}"]
    return _faults_of_json(response["content"][JSON]["schema"], body)


def find_operation(method: str, target: str) -> Operation | None:
    """The operation that a request means; a path without variables goes before one with."""
    path = urlsplit(target).path
    for template in sorted(_document()["paths"], key=lambda name: ("{" in name, name)):
        raw = _document()["paths"][template].get(method.lower())
        if raw is not None and re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template)), path):
            return Operation(method, template, raw)
    return None


def _faults_of_query(operation: Operation, query: str) -> list[str]:
    known = {p["name"] for p in operation.raw.get("parameters", ()) if p["in"] == "query"}
    return [f"no query parameter `{name}`" for name, _ in parse_qsl(query) if name not in known]


def _faults_of_json(schema: dict[str, Any], body: bytes, *, only_named: bool = False) -> list[str]:
    try:
        value = json.loads(body)
    except ValueError:
        return ["the body is no JSON"]
    faults = [f"{error.json_path}: {error.message}" for error in _validator(schema).iter_errors(value)]
    if only_named and isinstance(value, dict):
        faults += [f"no field `{name}`" for name in value if name not in schema.get("properties", {})]
    return faults


def _validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": _document()["components"]})


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return document
