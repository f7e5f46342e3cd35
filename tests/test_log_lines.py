"""A log line per record, whatever is in it."""

from __future__ import annotations

import logging

import pytest

from backend.log_lines import LogFormatter

FORGED = "2026-11-26 20:00:00,000 INFO backend.worker worker=w started"


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    formatter = LogFormatter()
    return [line for record in caplog.records for line in formatter.format(record).splitlines()]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\x1e"])
def test_a_text_with_a_line_break_makes_no_line_of_its_own(caplog, end):
    logging.getLogger("tests").warning("event %s is passed over", f"x{end}{FORGED}")
    assert [line for line in lines(caplog) if line.startswith("2026-11-26 20:00:00,000")] == []
    assert "is passed over" in lines(caplog)[-1]


def test_a_traceback_is_indented_with_the_texts_in_it(caplog):
    try:
        raise ValueError(f"x\n{FORGED}")
    except ValueError:
        logging.getLogger("tests").exception("it failed")
    first, *others = lines(caplog)
    assert first.endswith("ERROR tests it failed")
    assert all(line.startswith("    ") for line in others)


def test_control_characters_are_spelled_out():
    text = "\x1b[31mred\x00 \ud800 caf\u00e9 \u4e2d"
    record = logging.LogRecord("tests", logging.WARNING, "", 0, text, None, None)
    assert LogFormatter().format(record).endswith("\\x1b[31mred\\x00 \\ud800 caf\u00e9 \u4e2d")
