"""An LLM's word on which texts are worth a label: in small groups, repeated, and measured."""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.ordering import PoolView, Positions
from backend.active_learning.rank_aggregation import (
    ScoredTexts,
    borda,
    judgement_weight,
    place_effect,
    split_half_reliability,
)
from backend.domain.ports import Completion, Decoding, LanguageModel
from backend.errors import LanguageModelError
from backend.llm.prompts.text import slot_text

HIGHEST_SCORE = 4
_MAX_TEXT_CHARS = 400
_N_ID_LETTERS = 2
_TOKENS_PER_ITEM = 10
_NOISE = (
    "the LLM's judgement of which texts are informative does not repeat itself (split-half "
    "reliability {reliability}): it does not count"
)
_PLACES = (
    "the LLM's judgement follows the places in the prompt (rank correlation {effect:.2f}), "
    "which random orders average out"
)
_STRONG_PLACE_EFFECT = 0.5


@dataclass(frozen=True, slots=True)
class InformativenessSettings:
    """How often and in what groups an LLM is asked."""

    group_size: int = 20
    n_rounds: int = 4


@dataclass(slots=True)
class _Round:
    """One judgement of all texts: scores and places, NaN where the answer had none."""

    scores: NDArray[np.float64]
    places: NDArray[np.int64]
    counts: Counter[str] = field(default_factory=Counter)
    n_tokens: int = 0


class LLMInformativenessScorer:
    """Scores how much a label for a text would teach, 0 to 4, in groups of about 20.

    Each round deals the texts anew into groups and names them by random letters, so that neither
    places nor numbers can be continued as a pattern. The answer's schema requires one integer per
    name: nobody is forgotten or named twice. Rounds are joined by Borda's count, and the agreement
    of their halves is the weight (permutation self-consistency, arXiv 2310.07712). **Deviations**
    from ActiveLLM (arXiv 2405.10808): it asks for 32 of 200 texts in one answer, which large models
    mostly answer by place. Cost: `n_rounds` readings of the texts.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        question: str,
        settings: InformativenessSettings | None = None,
    ) -> None:
        self._model = model
        self._question = question
        self._settings = settings or InformativenessSettings()

    def scorer(
        self, pool: PoolView, shortlist: Positions, *, rng: np.random.Generator
    ) -> ScoredTexts:
        """Score the texts of a shortlist; an LLM that cannot be asked has weight 0."""
        if pool.read_texts is None or len(shortlist) < 2:
            return _silent(len(shortlist), "there are no texts to judge")
        texts = [slot_text(text)[:_MAX_TEXT_CHARS] for text in pool.read_texts(shortlist.tolist())]
        try:
            rounds = [self._ask(texts, rng) for _ in range(self._settings.n_rounds)]
        except LanguageModelError as exc:
            return _silent(len(shortlist), f"the LLM could not judge texts: {exc}")
        return _joined(rounds, rng)

    def _ask(self, texts: Sequence[str], rng: np.random.Generator) -> _Round:
        """Ask about all texts once, in groups of equal size but for one text."""
        info = self._model.describe()
        order = rng.permutation(len(texts))
        groups = np.array_split(order, max(1, round(len(texts) / self._settings.group_size)))
        result = _Round(np.full(len(texts), np.nan), np.zeros(len(texts), dtype=np.int64))
        for size in sorted({len(group) for group in groups}):
            alike = [group for group in groups if len(group) == size]
            names = draw_names(size, rng)
            decoding = Decoding(
                max_tokens=_TOKENS_PER_ITEM * size + 8,
                model=info.name,
                is_chat=info.has_chat,
                json_schema=judging_schema(names) if info.constrains_json else None,
            )
            prompts = [
                judging_prompt(self._question, names, [texts[at] for at in group])
                for group in alike
            ]
            completions = self._model.complete(prompts, decoding)
            for group, completion in zip(alike, completions, strict=True):
                self._read(completion, names, group, result)
        return result

    def _read(
        self, completion: Completion, names: Sequence[str], group: Positions, result: _Round
    ) -> None:
        result.n_tokens += completion.n_tokens_in + completion.n_tokens_out
        scores, counts = read_scores(completion, names)
        result.counts.update(counts)
        known = scores[~np.isnan(scores)]
        centre = known.mean() if len(known) else 0.0
        spread = known.std() if len(known) and known.std() > 0 else 1.0
        result.scores[group] = (scores - centre) / spread
        result.places[group] = np.arange(len(group))


def draw_names(n: int, rng: np.random.Generator) -> list[str]:
    """Return n different names of letters in random order, such as "qk"."""
    letters = string.ascii_lowercase
    drawn = rng.choice(len(letters) ** _N_ID_LETTERS, size=n, replace=False)
    return [letters[code // len(letters)] + letters[code % len(letters)] for code in drawn]


def judging_prompt(question: str, names: Sequence[str], texts: Sequence[str]) -> str:
    """Return the prompt for one group; the part that is the same for all groups comes first."""
    items = "\n".join(f'{name}: "{text}"' for name, text in zip(names, texts, strict=True))
    return (
        f"People will label texts: {question}\n"
        f"Say for each text how much a label for it would teach a classifier, from 0 (nothing: "
        f"garbled, or like many others) to {HIGHEST_SCORE} (much: clear and typical of its kind, "
        "or a case that others are judged by). Answer in JSON with one number for each name.\n\n"
        f"{items}\n\nJSON:"
    )


def judging_schema(names: Sequence[str]) -> str:
    """Return the JSON schema of an answer: one required integer per name and nothing else."""
    number = {"type": "integer", "minimum": 0, "maximum": HIGHEST_SCORE}
    return json.dumps(
        {
            "type": "object",
            "properties": dict.fromkeys(names, number),
            "required": list(names),
            "additionalProperties": False,
        }
    )


def read_scores(
    completion: Completion, names: Sequence[str]
) -> tuple[NDArray[np.float64], Counter[str]]:
    """Return the scores by name, NaN where there is none, and what was wrong; never raises."""
    scores = np.full(len(names), np.nan)
    if completion.failure is not None:
        return scores, Counter(failed=len(names))
    start, end = completion.text.find("{"), completion.text.rfind("}")
    try:
        answer = json.loads(completion.text[start : end + 1])
    except ValueError:
        return scores, Counter(unreadable=len(names))
    counts: Counter[str] = Counter()
    for place, name in enumerate(names):
        value = answer.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            counts["missing"] += 1
        elif not 0 <= value <= HIGHEST_SCORE:
            counts["out_of_range"] += 1
        else:
            scores[place] = value
    counts["invented"] += len(set(answer) - set(names))
    return scores, +counts


def _joined(rounds: Sequence[_Round], rng: np.random.Generator) -> ScoredTexts:
    scores = np.array([one.scores for one in rounds])
    reliability = split_half_reliability(scores, rng)
    effect = place_effect(scores, np.array([one.places for one in rounds]))
    weight = judgement_weight(reliability)
    shown = "unknown" if reliability is None else f"{reliability:.2f}"
    warnings = [] if weight > 0 else [_NOISE.format(reliability=shown)]
    if effect is not None and abs(effect) >= _STRONG_PLACE_EFFECT:
        warnings.append(_PLACES.format(effect=effect))
    return ScoredTexts(
        scores=borda(scores),
        reliability=reliability,
        weight=weight,
        n_tokens=sum(one.n_tokens for one in rounds),
        counts=dict(sum((one.counts for one in rounds), Counter())),
        warnings=tuple(warnings),
    )


def _silent(n_texts: int, why: str) -> ScoredTexts:
    return ScoredTexts(np.full(n_texts, 0.5), reliability=None, weight=0.0, warnings=(why,))
