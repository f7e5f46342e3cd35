"""One line of the doctor's: what a finding is, and those about the LLM."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from backend.domain.ports import Decoding, LanguageModel, LanguageModelInfo
from backend.errors import BackendError

State = Literal["ok", "warning", "failure"]
_SLOW_S = 5.0
_MAX_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What was checked, what was found, and what to do if it is not right."""

    subject: str
    state: State
    message: str
    remedy: str = ""

    @property
    def is_failure(self) -> bool:
        """Whether the backend cannot do its work like this."""
        return self.state == "failure"


def language_model_findings(model: LanguageModel) -> Iterator[Finding]:
    """Check that the LLM answers, what it can tell and how fast."""
    try:
        info = model.describe()
    except BackendError as exc:
        yield Finding(
            "LLM",
            "failure",
            str(exc),
            "start it (`make llm`), or set LLM_BASE_URL (and LLM_MODEL, LLM_API_KEY) to yours; one "
            "that is up may still be loading, or busy",
        )
        return
    yield Finding("LLM", "ok", f"{info.name} with a context of {info.n_context_tokens:,} tokens")
    if info.reads_token_ids:
        yield Finding("LLM", "ok", "tells the probability of every label")
    elif info.n_top_logprobs:
        yield Finding(
            "LLM",
            "warning",
            f"gives the {info.n_top_logprobs} likeliest tokens only: rare labels get a floor",
            "vLLM 0.32 or newer gives every label's probability",
        )
    else:
        yield Finding(
            "LLM",
            "warning",
            "gives no probabilities: what it writes counts as 80 % sure until people say better",
            "a server with `logprobs`, such as vLLM, says how sure each label is",
        )
    yield Finding("LLM", "ok", f"takes {_abilities(info)}")
    yield _speed(model)


def _speed(model: LanguageModel) -> Finding:
    """Ask for one token: what every label costs at least, one by one."""
    started_at = time.monotonic()
    (answer,) = model.complete(["Hello"], Decoding(), deadline_s=_MAX_PATIENCE_S)
    seconds = time.monotonic() - started_at
    if answer.failure is None and seconds <= _SLOW_S:
        return Finding("LLM", "ok", f"answers a short prompt in {seconds:.1f} s")
    took = f"took {seconds:.0f} s over one token" if answer.failure is None else answer.failure
    return Finding(
        "LLM",
        "warning",
        f"is slow: {took}; labels come, but not soon",
        "leave it the machine, or use a GPU or a smaller model",
    )


def _abilities(info: LanguageModelInfo) -> str:
    names = {
        "plain prompts": info.has_plain,
        "chats": info.has_chat,
        "answers held to choices": info.constrains_choices,
        "answers held to a JSON schema": info.constrains_json,
    }
    lacking = [name for name, is_there in names.items() if not is_there]
    found = ", ".join(name for name, is_there in names.items() if is_there)
    return found + (f"; not {', '.join(lacking)}" if lacking else "")
