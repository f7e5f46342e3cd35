"""Foreign text is read in time that grows as its length does, whatever it says."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from backend.active_learning import activellm_paper
from backend.errors import UnsupportedLabelConfig
from backend.labelstudio.events import plain_text
from backend.labelstudio.label_config.markup import parse_markup
from backend.labelstudio.label_config.offsets import read_html
from backend.llm.client.thoughts import read_answer
from backend.llm.date_answers import parse_date
from backend.llm.injection_flag import injection_flag
from backend.llm.loose_json import json_blocks
from backend.llm.number_answers import parse_number
from backend.llm.prompts.templates import clean_instruction
from backend.llm.prompts.written_answer import match_answer
from backend.llm.text_search import align
from backend.llm.values import clean_text

SHORT, GROWTH = 8_000, 8
TOO_SHORT_TO_TELL_S = 0.4


def config_with(inside: str) -> Callable[[str], object]:
    def read(text: str) -> object:
        try:
            return parse_markup(inside.format(text))
        except UnsupportedLabelConfig:
            return None

    return read


def letter(text: str) -> object:
    return match_answer(text, ("A", "B"), ("Positive", "Negative"))


READERS: dict[str, tuple[Callable[[str], object], tuple[str, ...]]] = {
    "free text": (
        clean_text,
        ("```\n|\n|", "```\n| \n|", "|**a |", "|__a|", "```|```|x", "here is the |a |"),
    ),
    "number": (parse_number, ("|1 |", "|1,|", "|1 000 |", "|$ |1", "|minus |1", "|1e|")),
    "date": (
        lambda text: parse_date(text, "%Y-%m-%d"),
        ("|jan 1 |", "|1 of |", "|1:11 |", "|2020-1-1 |", "|2020-1-1T|"),
    ),
    "option letter": (letter, ("|`|", "|*|", "|[|\1", "option|*|\1", "|a |", "the | |x")),
    "label name": (
        lambda text: match_answer(text, ("Positive", "Negative")),
        ("|[|", '|["|"', "|positive|", "|```|x", "a:| |"),
    ),
    "JSON": (
        lambda text: list(json_blocks(text)),
        ("|[|", "|{|", '|["a",[|', "|['|", '|{"a":|', "|<![CDATA[|", '{"a": "|\\|', "|[1, |"),
    ),
    "thoughts": (
        lambda text: read_answer({"text": text}),
        ("|<think>|", "|</think>|", "|<|channel|> |", "| |x"),
    ),
    "spans": (
        lambda text: align("a short text", [("label", text)]),
        ("a|.|a", "a|...|a", "| |a", "a|\N{HORIZONTAL ELLIPSIS}|a", "|(|"),
    ),
    "spans in a text": (
        lambda text: align(text, [("label", "a b")]),
        ("|a |", "|a|", "| |", "|e\u0301|", "|\u200b|"),
    ),
    "picks": (
        activellm_paper._RUN.findall,
        ("|1 |", "|1, and |", "1| |", "1,| |x", "|1|"),
    ),
    "injection": (
        injection_flag,
        ("|forget |", "forget| |", "|ignore a |", "|answer it |", "|>|", "|system|", "|a.i. |"),
    ),
    "instruction": (
        clean_instruction,
        ("|<a |", "|<!--|", "|<script|", "|</script|", "|<|", "|<script>|", "|&#|", "|<![|"),
    ),
    "project's instruction": (plain_text, ("|<a |", "|<!--|", "|<br|", "|< |", "|<|", "|&#|")),
    "HTML": (
        read_html,
        ("|<a |", "|<!--|", "|<![|", "|</|", "|<svg>|", "|</p>|", "|<?|", "|&|", "|<|", "|<a b='|"),
    ),
    "label config": (
        config_with("<View><![CDATA[{}]]></View>"),
        ("|<!-- freeal: |", "|freeal: skip=|", "| |"),
    ),
    "comment in a label config": (
        config_with("<View><!-- freeal: {} --></View>"),
        ("|skip |", "|skip=|", "skip=| |", "|skip = a, |", "|;|", "skip| |"),
    ),
}
CASES = [
    pytest.param(read, pattern, id=f"{name} {pattern!r}")
    for name, (read, patterns) in READERS.items()
    for pattern in patterns
]


def seconds(read: Callable[[str], object], pattern: str, n_chars: int) -> float:
    """Return the processor time of reading a repeated unit between a beginning and an end."""
    before, _, rest = pattern.partition("|")
    unit, _, after = rest.rpartition("|")
    text = before + unit * (n_chars // len(unit)) + after
    started = time.process_time()
    read(text)
    return time.process_time() - started


@pytest.mark.parametrize(("read", "pattern"), CASES)
def test_eight_times_the_text_takes_less_than_twice_eight_times_as_long(read, pattern):
    long = seconds(read, pattern, GROWTH * SHORT)
    if long > TOO_SHORT_TO_TELL_S:
        long = min(long, seconds(read, pattern, GROWTH * SHORT))
        short = min(seconds(read, pattern, SHORT) for _ in range(3))
        assert long < max(2 * GROWTH * short, TOO_SHORT_TO_TELL_S)
