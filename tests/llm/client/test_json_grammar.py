"""A schema as a grammar without blanks; or none, where it could be wrong."""

from __future__ import annotations

import pytest

from backend.llm.client.json_grammar import compact_grammar


def root(schema):
    grammar = compact_grammar(schema)
    return None if grammar is None else grammar.splitlines()[0].removeprefix("root ::= ")


def record(**properties):
    return {"type": "object", "properties": properties, "required": list(properties)}


@pytest.mark.parametrize(
    ("schema", "rule"),
    [
        (record(ok={"type": "boolean"}), r'("{" "\"ok\":" boolean "}")'),
        (
            record(a={"type": "integer"}, b={"type": ["number", "null"]}),
            r'("{" "\"a\":" integer "," "\"b\":" (number | "null") "}")',
        ),
        (
            record(kind={"enum": ['so "x"', "é"]}),
            r'("{" "\"kind\":" ("\"so \\\"x\\\"\"" | "\"é\"") "}")',
        ),
        ({"type": "array", "items": {"type": "string"}}, r'("[" (string ("," string){0,})? "]")'),
        (
            {"type": "array", "items": {"const": 1}, "minItems": 1, "maxItems": 3},
            r'("[" ("1" ("," "1"){0,2}) "]")',
        ),
        ({"type": "array", "items": {"const": 1}, "maxItems": 1}, r'("[" "1"? "]")'),
    ],
)
def test_a_schema_becomes_a_rule(schema, rule):
    assert root(schema) == rule


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "object", "properties": {"a": {"type": "string"}}},
        record(a={"type": "string", "pattern": "x+"}),
        record(a={"type": "string", "maxLength": 9}),
        record(a={"$ref": "#/x"}),
    ],
)
def test_other_schemas_are_left_to_the_server(schema):
    assert compact_grammar(schema) is None
