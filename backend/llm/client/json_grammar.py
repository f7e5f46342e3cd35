"""Write a JSON schema as a grammar without blanks, for servers whose schemas allow any number.

vLLM 0.32 lets an answer that is held to a schema go on with blanks after any brace or colon, and
small models then write nothing else. A request cannot forbid them, but it can give a grammar.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_RULES = r"""
string ::= "\"" char* "\""
char ::= [^"\\\x00-\x1f] | "\\" (["\\/bfnrt] | "u" [0-9A-Fa-f] [0-9A-Fa-f] [0-9A-Fa-f] [0-9A-Fa-f])
integer ::= "-"? ("0" | [1-9] [0-9]{0,15})
number ::= integer ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,3})?
boolean ::= "true" | "false"
"""
_UNSUPPORTED = frozenset(("pattern", "minLength", "maxLength"))
_SCALARS = ("string", "integer", "number", "boolean", "null")


def compact_grammar(schema: Mapping[str, Any]) -> str | None:
    """Return the grammar (EBNF) of a schema's JSON without blanks; None for other schemas.

    Supported are objects whose properties are all required (written in their order), arrays,
    enumerations, alternatives and scalars; bounds of numbers are left out. A bound on a string's
    length is not: counting its characters slows every token of a large vocabulary.
    """
    try:
        return f"root ::= {_rule(schema)}\n{_RULES}"
    except (KeyError, TypeError, ValueError):
        return None


def _rule(schema: Mapping[str, Any]) -> str:
    if "const" in schema:
        return _literal(json.dumps(schema["const"], ensure_ascii=False))
    if "enum" in schema:
        return _one_of([_literal(json.dumps(one, ensure_ascii=False)) for one in schema["enum"]])
    for name in ("anyOf", "oneOf"):
        if name in schema:
            return _one_of([_rule(one) for one in schema[name]])
    kind = schema["type"]
    if isinstance(kind, list):
        return _one_of([_rule({**schema, "type": one}) for one in kind])
    if kind == "object":
        return _object(schema)
    if kind == "array":
        return _array(schema)
    if kind not in _SCALARS or _UNSUPPORTED & schema.keys():
        raise ValueError(f"no rule for {schema}")
    return '"null"' if kind == "null" else str(kind)


def _object(schema: Mapping[str, Any]) -> str:
    properties = schema["properties"]
    if set(schema.get("required", ())) != set(properties):
        raise ValueError("a property may be left out")
    parts = [
        f"{_literal(json.dumps(name, ensure_ascii=False) + ':')} {_rule(value)}"
        for name, value in properties.items()
    ]
    return '("{" ' + ' "," '.join(parts) + ' "}")'


def _array(schema: Mapping[str, Any]) -> str:
    item = _rule(schema["items"])
    least, most = int(schema.get("minItems", 0)), schema.get("maxItems")
    rest = f'("," {item}){{{max(0, least - 1)},{"" if most is None else int(most) - 1}}}'
    items = f"({item} {rest})" if most is None or int(most) > 1 else item
    return f'("[" {items}{"" if least else "?"} "]")'


def _one_of(rules: list[str]) -> str:
    return f"({' | '.join(rules)})"


def _literal(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
