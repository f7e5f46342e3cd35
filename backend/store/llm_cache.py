"""Store language models' answers by key, and the usage of each project and purpose."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from operator import itemgetter

import sqlalchemy as sa

from backend.domain.llm_usage import Usage, UsageScope
from backend.domain.ports import Completion
from backend.store import tables as t
from backend.store.database import Repository, execute_for, upsert

_FIRST_DAY = date(2020, 1, 1)
_ROW_BYTES = 60
"""A row's key, day, and entries in both indexes."""
_MAX_SAMPLE = 2_000
_COUNTERS = ("n_calls", "n_prompts", "n_cache_hits", "n_tokens_in", "n_tokens_out", "seconds")


class LLMCache(Repository):
    """Store one row per answer: 16 bytes of key, a day, and the answer as short JSON."""

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Completion]:
        """Return the stored answers by key, marked as read from the cache."""
        table = t.llm_answers
        query = sa.select(table.c.key, table.c.answer)
        with self._db.read() as connection:
            rows = execute_for(connection, query, table.c.key, list(dict.fromkeys(keys)))
        return {bytes(key): _completion(text) for key, text in rows}

    def keep(self, answers: Mapping[bytes, Completion], usage: Usage) -> None:
        """Store answers and add to their scope's usage, in one transaction; known answers stay.

        By key: two workers that store some of the same answers would else wait for each other.
        """
        today = (date.today() - _FIRST_DAY).days
        rows = [
            {"key": key, "answer": _text(answer), "day": today}
            for key, answer in sorted(answers.items(), key=itemgetter(0))
        ]
        counters = {
            "project_id": usage.scope.project_id,
            "purpose": usage.scope.purpose,
            **{name: getattr(usage, name) for name in _COUNTERS},
        }
        with self._db.write() as connection:
            upsert(connection, t.llm_answers, rows, keep=("answer", "day"))
            upsert(connection, t.llm_usage, [counters], add=_COUNTERS)

    def discard(self, keys: Sequence[bytes]) -> None:
        """Delete answers by key; those that are not there are passed over."""
        table = t.llm_answers
        with self._db.write() as connection:
            execute_for(connection, sa.delete(table), table.c.key, list(dict.fromkeys(keys)))

    def forget(self, older_than_days: int) -> int:
        """Delete the answers stored longer ago than this; return how many."""
        first_day = (date.today() - _FIRST_DAY).days - older_than_days
        return self._db.execute(sa.delete(t.llm_answers).where(t.llm_answers.c.day < first_day))

    def trim(self, max_bytes: int) -> int:
        """Delete the oldest answers until the rest take about `max_bytes`; return how many."""
        table = t.llm_answers
        n_answers = self._db.fetch_value(sa.select(sa.func.count(table.c.day)))
        sample = sa.select(sa.func.length(table.c.answer).label("size")).limit(_MAX_SAMPLE)
        mean = self._db.fetch_value(sa.select(sa.func.avg(sample.subquery().c.size)))
        n_over = n_answers - int(max_bytes / (float(mean or 0) + _ROW_BYTES))
        n_deleted = 0
        while n_over > 0:
            oldest = sa.select(table.c.key).order_by(table.c.day).limit(min(n_over, _MAX_SAMPLE))
            n = self._db.execute(sa.delete(table).where(table.c.key.in_(oldest)))
            n_over, n_deleted = n_over - n if n else 0, n_deleted + n
        return n_deleted

    def usage(self, project_id: str) -> list[Usage]:
        """Return a project's usage, by purpose."""
        table = t.llm_usage
        query = sa.select(table).where(table.c.project_id == project_id).order_by(table.c.purpose)
        return [
            Usage(
                scope=UsageScope(row.project_id, row.purpose),
                **{name: getattr(row, name) for name in _COUNTERS},
            )
            for row in self._db.fetch(query)
        ]


def _text(answer: Completion) -> str:
    """Return an answer as JSON without its empty fields; failures are never stored."""
    pairs = [*(answer.logprobs or {}).items(), *(answer.text_logprobs or {}).items()]
    is_known = answer.logprobs is not None or answer.text_logprobs is not None
    fields = {
        "t": answer.text,
        "l": pairs if is_known else None,
        "m": answer.mean_logprob,
        "f": answer.finish_reason,
    }
    given = {name: value for name, value in fields.items() if value not in (None, "")}
    return json.dumps(given, separators=(",", ":"), ensure_ascii=True)


def _completion(text: str) -> Completion:
    fields = json.loads(text)
    pairs = fields.get("l", ())
    by_text = {key: value for key, value in pairs if isinstance(key, str)}
    by_id = {key: value for key, value in pairs if not isinstance(key, str)}
    return Completion(
        text=fields.get("t", ""),
        logprobs=by_id if "l" in fields and not by_text else None,
        text_logprobs=by_text or None,
        mean_logprob=fields.get("m"),
        finish_reason=fields.get("f"),
        is_from_cache=True,
    )
