"""Map labels to answer words and tokens, and completions to posteriors over the labels."""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.domain.labels import Abstention, AbstentionReason
from backend.domain.ports import Completion
from backend.domain.questions import LabelDefinition
from backend.errors import UnsupportedLabelConfig
from backend.llm.prompts.token_texts import begin_alike

OPTION_LETTERS = string.ascii_uppercase + string.ascii_lowercase
"""Names of the options when the labels' names do not differ in the first token."""

_MIN_LABEL_MASS = 1e-12
"""Below, the numbers say nothing about the labels: a masked token is reported as -9999."""
_ROUNDING = 1e-3


@dataclass(frozen=True, slots=True)
class Verbalizer:
    """The word that the model is to write for each label, and its distinguishing token.

    Args:
        token_ids: one per word; empty where the server reports no probabilities of tokens.
        are_letters: whether the words are "A", "B", ... and the prompt has to define them.
        names: each label's name, where the words are letters.
        lead: what every word begins with and the prompt therefore ends with: a space before
            digits, which tokenizers make a token of its own.
    """

    words: tuple[str, ...]
    token_ids: tuple[int, ...]
    are_letters: bool = False
    lead: str = ""
    names: tuple[str, ...] = ()


def build_verbalizer(
    labels: Sequence[LabelDefinition],
    tokenize: Callable[[str], Sequence[int]],
    *,
    is_chat: bool = False,
) -> Verbalizer:
    """Return the labels' names as the words if their first tokens differ, else option letters.

    Only one token of an answer is read. In a chat the answer begins without a space. Cost: one
    tokenization per label.

    Raises:
        UnsupportedLabelConfig: there are more labels than letters.
    """
    names = answer_names(labels)
    space = "" if is_chat else " "
    tokenized = [tuple(tokenize(space + name)) for name in names]
    if firsts := _first_tokens(tokenized):
        return Verbalizer(names, firsts)
    blank = () if is_chat else tuple(tokenize(" "))
    has_blank = not is_chat and all(one[: len(blank)] == blank for one in tokenized)
    if has_blank and (firsts := _first_tokens([one[len(blank) :] for one in tokenized])):
        return Verbalizer(names, firsts, lead=" ")
    letters: dict[str, int] = {}  # of one token each, no two the same
    for letter in OPTION_LETTERS:
        tokens = tuple(tokenize(space + letter))
        if len(tokens) == 1 and tokens[0] not in letters.values():
            letters[letter] = tokens[0]
        if len(letters) == len(names):
            break
    if len(letters) < len(names):
        raise UnsupportedLabelConfig(
            f"{len(names)} labels whose names begin alike; the language model can tell at most "
            f"{len(letters)} such labels apart. Use fewer labels, or names that begin differently"
        )
    return Verbalizer(tuple(letters), tuple(letters.values()), are_letters=True, names=names)


def written_verbalizer(labels: Sequence[LabelDefinition], *, by_first_token: bool) -> Verbalizer:
    """Return the answer words where no token ids are read: the labels' names, or option letters.

    Args:
        by_first_token: the server reports likely first tokens by their text. Names of which one
            begins another could then be mistaken and become letters.
    """
    names = answer_names(labels)
    has_letters = len(names) <= len(OPTION_LETTERS)
    if has_letters and by_first_token and begin_alike(names):
        return Verbalizer(tuple(OPTION_LETTERS[: len(names)]), (), are_letters=True, names=names)
    return Verbalizer(names, ())


def answer_names(labels: Sequence[LabelDefinition]) -> tuple[str, ...]:
    """Return the labels' names as they stand in a running text: in small letters.

    Leaves of a tree that share a name are called by their paths; names that differ in case alone
    keep it.
    """
    names = [_normalize(label.name) for label in labels]
    n_so_named = Counter(names)
    paths = [
        _normalize(" / ".join(label.path)) if n_so_named[name] > 1 and label.path else name
        for label, name in zip(labels, names, strict=True)
    ]
    n_so_called = Counter(paths)
    return tuple(
        " ".join(label.name.split()) if n_so_called[name] > 1 else name
        for label, name in zip(labels, paths, strict=True)
    )


def read_posterior(
    completion: Completion, token_ids: Sequence[int]
) -> Mapping[str, Any] | Abstention:
    """Return p(label | answer is a label) and its label mass, or why neither can be read.

    Softmax over the labels' log-probabilities. A label whose token was not reported gets a floor,
    one nat below the least likely reported token, which the label's token cannot exceed.
    `label_mass`, the labels' share of the vocabulary, counts reported tokens only.
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
    posterior = tuple(weight / math.fsum(weights) for weight in weights)
    return {"probabilities": posterior, "label_mass": min(1.0, label_mass)}


def _first_tokens(tokenized: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the words' first tokens, () unless they all differ."""
    firsts = tuple(tokens[0] for tokens in tokenized if tokens)
    return firsts if len(set(firsts)) == len(tokenized) else ()


def _normalize(text: str) -> str:
    return " ".join(text.split()).lower()


def _log_sum_exp(values: Sequence[float]) -> float:
    highest = max(values)
    return highest + math.log(math.fsum(math.exp(value - highest) for value in values))


def _unreadable(detail: str) -> Abstention:
    return Abstention(AbstentionReason.UNREADABLE, detail)
