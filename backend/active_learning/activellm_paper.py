"""ActiveLLM as published: show an LLM 200 texts and ask which 32 to label."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from backend.active_learning.baselines import complete_order
from backend.active_learning.diagnostics import position_warnings
from backend.active_learning.strategy_interface import Ordering, PoolView, QueryStrategy
from backend.domain.ports import Conversation, Decoding, LanguageModel
from backend.errors import LanguageModelError, SettingsError
from backend.llm.prompts.templates import slot_text

Answer = Literal["list", "think", "explain"]
"""What the LLM is to write: numbers alone, after some reasoning, or with a word on each text."""

_MIN_LISTED = 2
_RUN = re.compile(r"\d+(?:\s*,\s*(?:and\s+)?\d+)*")
_N_RESERVED_TOKENS = 64
_ANSWER_TOKENS = {"list": 8, "think": 12, "explain": 40}
_ADVICE = (
    "Look for texts that are representative, diverse, hard to tell, spread over all parts of the "
    "data, balanced over the likely classes, of different times and places, and without bias."
)
_OUTPUT = {
    "list": "Answer with nothing but the numbers with commas between them.",
    "think": (
        "Think step by step about what you would do to choose well. Then give the numbers with "
        "commas between them."
    ),
    "explain": (
        "Say text by text why it should be chosen or not, until {k} are chosen. Then give the "
        "numbers with commas between them."
    ),
}


@dataclass(frozen=True, slots=True)
class PaperSettings:
    """The published method's choices; the defaults are its best mode.

    `n_texts` (50 to 400) are shown per prompt and `n_picks` asked for. `answer`, `has_advice` and
    `guidelines` are the prompt variants. `n_iterations` above 1 is the iterative mode with index
    recall: `n_picks` each time (25 in the paper), chosen numbers named after the list.
    """

    n_texts: int = 200
    n_picks: int = 32
    answer: Answer = "think"
    has_advice: bool = False
    guidelines: str = ""
    n_iterations: int = 1


_DEFAULT = PaperSettings()
_MIN_TEXTS, _MAX_TEXTS = 50, 400
_ITERATIVE_PICKS = 25
_NUMBERS = ("texts", "picks", "rounds")
_WORDS = ("advice", "guidelines", *get_args(Answer))


def parse_mode(mode: str, *, guidelines: str = "") -> PaperSettings:
    """Parse the choices that a setting names, such as "advice, explain, texts=100, rounds=4".

    Args:
        mode: `list`, `think` or `explain` for the answer, `advice`, `guidelines` to show those of
            the project, `texts=N` (50 to 400), `picks=N` (32, or 25 in the iterative mode) and
            `rounds=N` (the iterations), with commas between them.
        guidelines: the project's.

    Raises:
        SettingsError: the mode names anything else.
    """
    words = [word.strip() for word in mode.split(",") if word.strip()]
    numbers: dict[str, int] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name in _NUMBERS and value.isdecimal() and int(value) > 0:
            numbers[name] = int(value)
        elif word not in _WORDS:
            known = ", ".join([*_WORDS, *(f"{name}=N" for name in _NUMBERS)])
            raise SettingsError(f"QUERY_PAPER_MODE={mode!r}: {word!r} is none of {known}")
    answers = [word for word in get_args(Answer) if word in words]
    n_iterations = numbers.get("rounds", 1)
    n_texts = numbers.get("texts", _DEFAULT.n_texts)
    n_picks = numbers.get("picks", _DEFAULT.n_picks if n_iterations == 1 else _ITERATIVE_PICKS)
    if not _MIN_TEXTS <= n_texts <= _MAX_TEXTS or n_picks > n_texts or len(answers) > 1:
        raise SettingsError(
            f"QUERY_PAPER_MODE={mode!r}: expected {_MIN_TEXTS} to {_MAX_TEXTS} texts, no more "
            "picks than texts, and one kind of answer"
        )
    return PaperSettings(
        n_texts=n_texts,
        n_picks=n_picks,
        answer=answers[0] if answers else "think",
        has_advice="advice" in words,
        guidelines=guidelines if "guidelines" in words else "",
        n_iterations=n_iterations,
    )


class PaperActiveLLM:
    """ActiveLLM (arXiv 2405.10808, section 3; mode "no advice, think step by step", 200 texts).

    The LLM sees a numbered list of texts, no task and no classes, and names the ones to label;
    they come first, in the order of the answer, and `then` orders the rest. **Deviations** from
    the released code: an answer is parsed by a program, not by hand, and numbers that are repeated,
    out of range or too many are dropped and counted, too few are filled up at random; one number
    per text instead of two; the list is as long as stated (the code shows 201), and shorter where
    the model's context is full. Cost: one prompt of `n_texts` texts per iteration.
    """

    name = "activellm-paper"

    def __init__(
        self,
        model: LanguageModel,
        *,
        settings: PaperSettings = _DEFAULT,
        then: QueryStrategy | None = None,
    ) -> None:
        self._model = model
        self._settings = settings
        self._then = then

    def order(self, pool: PoolView, *, rng: np.random.Generator) -> Ordering:
        """Order all open positions: the LLM's picks, then those of `then`, or random ones."""
        shown = rng.permutation(pool.open_positions)
        counts: Counter[str] = Counter()
        chosen: list[int] = []
        n_tokens = 0
        problem: tuple[str, ...] = ()
        try:
            for _ in range(self._settings.n_iterations):
                picks, wrong, n_used = self._ask(pool, shown.tolist(), chosen)
                chosen += picks
                counts.update(wrong)
                n_tokens += n_used
        except LanguageModelError as exc:
            problem = (f"the LLM could not be asked for texts to label: {exc}",)
        ordering = self._with_rest(pool, shown[chosen].tolist() if chosen else [], rng)
        picked = np.array(chosen[: self._settings.n_picks], dtype=np.int64)
        biases = position_warnings(picked, n_choices=len(shown))
        measured = ordering.diagnostics
        warnings = (*measured.warnings, *biases, *problem)
        measured = replace(measured, n_tokens=n_tokens, counts=dict(counts), warnings=warnings)
        return replace(ordering, diagnostics=measured)

    def _ask(
        self, pool: PoolView, shown: Sequence[int], chosen: Sequence[int]
    ) -> tuple[list[int], Counter[str], int]:
        """Return the picks, what was wrong with the answer, and the tokens it cost."""
        if pool.read_texts is None:
            return [], Counter(), 0
        info = self._model.describe()
        n_texts = min(len(shown), max(chosen, default=-1) + 1 + self._settings.n_texts)
        n_answer = 64 + _ANSWER_TOKENS[self._settings.answer] * self._settings.n_picks
        texts = [slot_text(text) for text in pool.read_texts(list(shown[:n_texts]))]
        n_most = info.n_context_tokens - n_answer - _N_RESERVED_TOKENS
        prompt = selection_prompt(texts, self._settings, chosen)
        while len(texts) > 1:
            if len(prompt) <= n_most or len(self._model.tokenize(prompt)) <= n_most:
                break
            texts = texts[: len(texts) // 2]
            prompt = selection_prompt(texts, self._settings, chosen)
        decoding = Decoding(max_tokens=n_answer, model=info.name)
        asked = Conversation("", (prompt,)) if info.has_chat else prompt
        (completion,) = self._model.complete([asked], decoding)
        n_tokens = completion.n_tokens_in + completion.n_tokens_out
        if completion.failure is not None:
            return [], Counter(failed=1), n_tokens
        n_picks = self._settings.n_picks
        return (*parse_picks(completion.text, len(texts), n_picks=n_picks, taken=chosen), n_tokens)

    def _with_rest(self, pool: PoolView, head: list[int], rng: np.random.Generator) -> Ordering:
        reason = "picked from a list by the LLM"
        if self._then is None:
            return complete_order(pool, head, reason, rng)
        labeled = {**pool.labeled, **dict.fromkeys(head, None)}
        rest = self._then.order(replace(pool, labeled=labeled), rng=rng)
        diagnostics = complete_order(pool, head, reason, rng).diagnostics
        positions = np.concatenate([np.array(head, dtype=np.int64), rest.positions])
        return Ordering(positions, (reason,) * len(head) + rest.reasons, diagnostics)


def selection_prompt(
    texts: Sequence[str], settings: PaperSettings, chosen: Sequence[int] = ()
) -> str:
    """Return the prompt that shows the texts, numbered from 0, and asks for some of them."""
    k = settings.n_picks
    parts = [
        "You are the part of an active learning system that helps a person who labels texts: you "
        "choose the texts that are to be labelled.",
        "You are given a set of texts from a data set. " + f"You can choose only {k} of them.",
        _ADVICE if settings.has_advice else "",
        f"The person labels by these guidelines: {settings.guidelines}"
        if settings.guidelines
        else "",
        _OUTPUT[settings.answer].format(k=k),
        "\n#####\n".join(f"{number}. {text}" for number, text in enumerate(texts)),
        "Already labelled (numbers above): " + ", ".join(map(str, chosen)) if chosen else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n\n"


def parse_picks(
    text: str, n_texts: int, *, n_picks: int, taken: Sequence[int] = ()
) -> tuple[list[int], Counter[str]]:
    """Parse the longest list of numbers in an answer, the last one of equals; never raises.

    An answer without a list (`unreadable`) chooses nothing: one number may belong to a sentence.

    Returns:
        The picks in the answer's order, and counts: `named` numbers, of them `duplicate`,
        `already_taken` and `out_of_range` ones that are dropped and `surplus` ones that are cut
        off; how many are `missing`; `ascending` is 1 when the picks never descend.
    """
    runs = [[int(n[:9]) for n in re.findall(r"\d+", run)] for run in _RUN.findall(text)]
    named = max(reversed(runs), key=len, default=[])
    if len(named) < min(_MIN_LISTED, n_picks):
        return [], Counter(unreadable=1, missing=n_picks)
    counts: Counter[str] = Counter(named=len(named))
    picks: list[int] = []
    for number in named:
        if number >= n_texts:
            counts["out_of_range"] += 1
        elif number in picks:
            counts["duplicate"] += 1
        elif number in taken:
            counts["already_taken"] += 1
        else:
            picks.append(number)
    counts["surplus"] = max(0, len(picks) - n_picks)
    picks = picks[:n_picks]
    counts["missing"] = n_picks - len(picks)
    counts["ascending"] = int(len(picks) > 2 and picks == sorted(picks))
    return picks, counts
