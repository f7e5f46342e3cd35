"""Answers of language models, found again by their key, and what they have cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import sqlalchemy as sa

from backend.domain.llm_usage import Usage, UsageScope
from backend.domain.ports import Completion
from backend.store import tables as t
from backend.store.database import Database, upsert

_IN_SLICE = 900
_FIRST_DAY = date(2020, 1, 1)
_COUNTERS = ("n_calls", "n_prompts", "n_cache_hits", "n_tokens_in", "n_tokens_out", "seconds")


class LLMCache:
    """One row per answer: 16 bytes of key, a day, and the answer as short JSON."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Completion]:
        """Return the answers that are known, by key."""
        table = t.llm_answers
        wanted = list(dict.fromkeys(keys))
        found: dict[bytes, Completion] = {}
        with self._db.read() as connection:
            for start in range(0, len(wanted), _IN_SLICE):
                query = sa.select(table.c.key, table.c.answer).where(
                    table.c.key.in_(wanted[start : start + _IN_SLICE])
                )
                found |= {
                    bytes(key): _completion(answer) for key, answer in connection.execute(query)
                }
        return found

    def keep(self, answers: Mapping[bytes, Completion], usage: Usage) -> None:
        """Keep answers and add to an account, in one transaction; known answers stay."""
        today = (date.today() - _FIRST_DAY).days
        rows = [
            {"key": key, "answer": _text(answer), "day": today} for key, answer in answers.items()
        ]
        with self._db.write() as connection:
            upsert(connection, t.llm_answers, rows, keep=("answer", "day"))
            _charge(connection, usage)

    def forget(self, older_than_days: int) -> int:
        """Delete answers that were asked for longer ago than this; return how many."""
        table = t.llm_answers
        last_day = (date.today() - _FIRST_DAY).days - older_than_days
        with self._db.write() as connection:
            return connection.execute(sa.delete(table).where(table.c.day < last_day)).rowcount

    def usage(self, project_id: str) -> list[Usage]:
        """Return what was asked for a project, by purpose."""
        table = t.llm_usage
        query = sa.select(table).where(table.c.project_id == project_id).order_by(table.c.purpose)
        with self._db.read() as connection:
            return [
                Usage(
                    account=UsageScope(row.project_id, row.purpose),
                    **{name: getattr(row, name) for name in _COUNTERS},
                )
                for row in connection.execute(query)
            ]


def _charge(connection: sa.Connection, usage: Usage) -> None:
    table = t.llm_usage
    key = {"project_id": usage.account.project_id, "purpose": usage.account.purpose}
    zeros: dict[str, Any] = dict.fromkeys(_COUNTERS, 0)
    upsert(connection, table, [key | zeros], keep=_COUNTERS)
    added = {name: table.c[name] + getattr(usage, name) for name in _COUNTERS}
    connection.execute(sa.update(table).where(_is(table, key)).values(added))


def _is(table: sa.Table, key: Mapping[str, str]) -> sa.ColumnElement[bool]:
    return sa.and_(*(table.c[name] == value for name, value in key.items()))


def _text(answer: Completion) -> str:
    """Return an answer as JSON without what it lacks; a failure is never kept."""
    fields = {
        "t": answer.text,
        "l": list((answer.logprobs or {}).items()) if answer.logprobs is not None else None,
        "m": answer.mean_logprob,
        "f": answer.finish_reason,
    }
    given = {name: value for name, value in fields.items() if value not in (None, "")}
    return json.dumps(given, separators=(",", ":"), ensure_ascii=True)


def _completion(text: str) -> Completion:
    fields = json.loads(text)
    pairs = fields.get("l")
    return Completion(
        text=fields.get("t", ""),
        logprobs=None if pairs is None else {token: value for token, value in pairs},
        mean_logprob=fields.get("m"),
        finish_reason=fields.get("f"),
        is_from_cache=True,
    )
