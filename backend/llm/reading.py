"""Answer words for a label space, and the posterior that a completion gives over it."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backend.core.ports import Completion
from backend.core.types import Abstention, AbstentionReason, LabelDefinition
from backend.errors import UnsupportedLabelConfig

Tokenize = Callable[[str], Sequence[int]]

MARKS = string.ascii_uppercase + string.ascii_lowercase
"""What options are called when their names cannot be told apart by the first token."""

_LEAST_LABEL_MASS = 1e-12
"""Under this, the numbers say nothing about the labels: a masked token is reported as -9999."""
_ROUNDING = 1e-3


@dataclass(frozen=True, slots=True)
class AnswerWords:
    """What the model is expected to write for each label, and the first token of it.

    `are_marks`: the words are "A", "B", ... and the prompt has to say what they stand for.
    """

    words: tuple[str, ...]
    token_ids: tuple[int, ...]
    are_marks: bool = False


@dataclass(frozen=True, slots=True)
class Posterior:
    """Probabilities of the labels, in their order, and the share of the vocabulary they took."""

    probabilities: tuple[float, ...]
    label_mass: float


def choose_answer_words(labels: Sequence[LabelDefinition], tokenize: Tokenize) -> AnswerWords:
    """Return the labels' names as the words if their first tokens differ, else option marks.

    Only the first token of an answer is read, one request per example. Costs one tokenization per
    label. Raises UnsupportedLabelConfig when there are more labels than marks.
    """
    words = tuple(answer_word(label) for label in labels)
    first_tokens = [tuple(tokenize(" " + word))[:1] for word in words]
    if all(first_tokens) and len(set(first_tokens)) == len(words):
        return AnswerWords(words, tuple(token for (token,) in first_tokens))
    marks = _single_token_marks(len(words), tokenize)
    if len(marks) < len(words):
        raise UnsupportedLabelConfig(
            f"{len(words)} labels whose names begin alike; the language model can tell at most "
            f"{len(marks)} such labels apart. Use fewer labels, or names that begin differently"
        )
    return AnswerWords(tuple(marks), tuple(marks.values()), are_marks=True)


def answer_word(label: LabelDefinition) -> str:
    """Return a label's name as it stands in a running text."""
    return " ".join(label.name.split()).lower()


def read_posterior(completion: Completion, token_ids: Sequence[int]) -> Posterior | Abstention:
    """Return p(label | answer is a label), or why it cannot be read; never raises.

    Softmax over the labels' log-probabilities. A label whose token the server did not report gets
    a floor, one nat below the least likely token that it did report, which the label's token
    cannot exceed. `label_mass` counts reported tokens only.
    """
    logprobs = {
        token: value
        for token, value in (completion.logprobs or {}).items()
        if math.isfinite(value) and value <= _ROUNDING
    }
    reported = [logprobs[token] for token in token_ids if token in logprobs]
    if not reported:
        return _unreadable("the server reported no probability for any of the labels")
    label_mass = math.exp(_log_sum_exp(reported))
    if label_mass < _LEAST_LABEL_MASS:
        return _unreadable("the model gives none of the labels any probability")
    floor = min(logprobs.values()) - 1.0
    values = [logprobs.get(token, floor) for token in token_ids]
    total = _log_sum_exp(values)
    weights = [math.exp(value - total) for value in values]
    return Posterior(
        probabilities=tuple(weight / math.fsum(weights) for weight in weights),
        label_mass=min(1.0, label_mass),
    )


def _single_token_marks(n_wanted: int, tokenize: Tokenize) -> dict[str, int]:
    """Return up to `n_wanted` marks that are one token each, no two the same."""
    found: dict[str, int] = {}
    for mark in MARKS:
        tokens = tuple(tokenize(" " + mark))
        if len(tokens) == 1 and tokens[0] not in found.values():
            found[mark] = tokens[0]
        if len(found) == n_wanted:
            break
    return found


def _log_sum_exp(values: Sequence[float]) -> float:
    highest = max(values)
    return highest + math.log(math.fsum(math.exp(value - highest) for value in values))


def _unreadable(detail: str) -> Abstention:
    return Abstention(AbstentionReason.UNREADABLE, detail)
