"""Answer words for a label space, and the posterior that a completion gives over it."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backend.domain.labels import Abstention, AbstentionReason
from backend.domain.ports import Completion
from backend.domain.questions import LabelDefinition
from backend.errors import UnsupportedLabelConfig

Tokenize = Callable[[str], Sequence[int]]

MARKS = string.ascii_uppercase + string.ascii_lowercase
"""What options are called when their names cannot be told apart by the first token."""

SURE_OF_WRITTEN = 0.8
"""Taken for an answer without probabilities until human labels tell how often it is right."""

_AROUND_ANSWERS = " \t\"'`*.,:;!()[]"
_MIN_LABEL_MASS = 1e-12
"""Under this, the numbers say nothing about the labels: a masked token is reported as -9999."""
_ROUNDING = 1e-3


@dataclass(frozen=True, slots=True)
class Verbalizer:
    """What the model is expected to write for each label, and the token that tells it apart.

    `are_marks`: the words are "A", "B", ... and the prompt has to say what they stand for.
    `lead` is what every word begins with and the prompt therefore ends with: a space before
    figures, which tokenizers make a token of its own. `token_ids` is empty where the server
    reads no tokens.
    """

    words: tuple[str, ...]
    token_ids: tuple[int, ...]
    are_marks: bool = False
    lead: str = ""


@dataclass(frozen=True, slots=True)
class Posterior:
    """Probabilities of the labels, in their order, and the share of the vocabulary they took."""

    probabilities: tuple[float, ...]
    label_mass: float


def build_verbalizer(
    labels: Sequence[LabelDefinition],
    tokenize: Tokenize,
    *,
    wants_marks: bool = False,
    is_chat: bool = False,
) -> Verbalizer:
    """Return the labels' names as the words if their first tokens differ, else option marks.

    Only one token of an answer is read, one request per example. In a chat the answer begins
    without a space. Costs one tokenization per label. Raises UnsupportedLabelConfig when there
    are more labels than marks.
    """
    names = answer_names(labels)
    space = "" if is_chat else " "
    if not wants_marks:
        spoken = [tuple(tokenize(space + name)) for name in names]
        if firsts := _telling_tokens(spoken):
            return Verbalizer(names, firsts)
        if not is_chat and (firsts := _telling_tokens(_without_space(spoken, tokenize))):
            return Verbalizer(names, firsts, lead=" ")
    marks = _single_token_marks(len(names), tokenize, space)
    if len(marks) < len(names):
        raise UnsupportedLabelConfig(
            f"{len(names)} labels whose names begin alike; the language model can tell at most "
            f"{len(marks)} such labels apart. Use fewer labels, or names that begin differently"
        )
    return Verbalizer(tuple(marks), tuple(marks.values()), are_marks=True)


def answer_names(labels: Sequence[LabelDefinition]) -> tuple[str, ...]:
    """Return the labels' names as they stand in a running text.

    Leaves of a tree that share a name are called by their paths.
    """
    names = [_running(label.name) for label in labels]
    return tuple(
        _running(" / ".join(label.path)) if names.count(name) > 1 and label.path else name
        for label, name in zip(labels, names, strict=True)
    )


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
    if label_mass < _MIN_LABEL_MASS:
        return _unreadable("the model gives none of the labels any probability")
    floor = min(logprobs.values()) - 1.0
    values = [logprobs.get(token, floor) for token in token_ids]
    total = _log_sum_exp(values)
    weights = [math.exp(value - total) for value in values]
    return Posterior(
        probabilities=tuple(weight / math.fsum(weights) for weight in weights),
        label_mass=min(1.0, label_mass),
    )


def read_word(text: str, words: Sequence[str]) -> int | None:
    """Return which word a written answer is: letter case, quotes and a full stop do not count.

    The first line counts alone; an answer that says more than one of the words is none of them.
    """
    line = text.strip().split("\n", 1)[0]
    plain = _running(line.strip(_AROUND_ANSWERS))
    return next((at for at, word in enumerate(words) if _running(word) == plain), None)


def written_posterior(index: int, n_labels: int) -> tuple[float, ...]:
    """Return the posterior of an answer that was written out, without probabilities.

    The label that was named gets `SURE_OF_WRITTEN`, the others share the rest.
    """
    if n_labels == 1:
        return (1.0,)
    rest = (1.0 - SURE_OF_WRITTEN) / (n_labels - 1)
    return tuple(SURE_OF_WRITTEN if at == index else rest for at in range(n_labels))


def _telling_tokens(spoken: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the words' first tokens, or nothing when they do not tell the words apart."""
    firsts = tuple(tokens[0] for tokens in spoken if tokens)
    return firsts if len(set(firsts)) == len(spoken) else ()


def _without_space(spoken: Sequence[tuple[int, ...]], tokenize: Tokenize) -> list[tuple[int, ...]]:
    """Return the words' tokens after a token for the space alone; nothing if one has none."""
    blank = tuple(tokenize(" "))
    if not all(tokens[: len(blank)] == blank for tokens in spoken):
        return []
    return [tokens[len(blank) :] for tokens in spoken]


def _running(text: str) -> str:
    return " ".join(text.split()).lower()


def _single_token_marks(n_wanted: int, tokenize: Tokenize, space: str) -> dict[str, int]:
    """Return up to `n_wanted` marks that are one token each, no two the same."""
    found: dict[str, int] = {}
    for mark in MARKS:
        tokens = tuple(tokenize(space + mark))
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
