"""Score with an LLM how informative texts are: in small groups, repeated, and aggregated."""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.diagnostics import rank_correlation
from backend.active_learning.strategy_interface import PoolView, Positions
from backend.domain.ports import Completion, Conversation, Decoding, LanguageModel, Prompt
from backend.errors import LanguageModelError
from backend.llm.prompts.templates import slot_text

MAX_SCORE = 4
_MAX_TEXT_CHARS = 400
_N_ID_LETTERS = 2
_TOKENS_PER_ITEM = 10
_N_SPLITS = 8
_MIN_TEXTS = 8
_MIN_RELIABILITY = 0.2
_MAX_POSITION_BIAS = 0.5
_NOISE = (
    "the LLM's judgement of which texts are informative does not repeat itself (split-half "
    "reliability {reliability}): it does not count"
)
_POSITION_BIAS = (
    "the LLM's judgement follows the places in the prompt (rank correlation {bias:.2f}), "
    "which random orders average out"
)

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ScoredTexts:
    """How informative an LLM finds some texts.

    Args:
        scores: shape (m,), in [0, 1], the most informative highest.
        reliability: their split-half reliability, in [-1, 1]; None where it cannot be measured.
        weight: how far they may move a gain, in [0, 1]; 0 where they are noise.
        n_tokens, counts: what they cost, and what was wrong with the answers.
        warnings: sentences that a person should read.
    """

    scores: Scores
    reliability: float | None
    weight: float
    n_tokens: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Pass:
    """One pass over all texts: scores and positions in the prompt, NaN where there is no score."""

    scores: Scores
    positions: NDArray[np.int64]
    counts: Counter[str] = field(default_factory=Counter)
    n_tokens: int = 0


class LLMInformativenessScorer:
    """Scores how much a label for a text would teach, 0 to 4, in groups of about 20.

    Each pass deals the texts anew into groups and names them by random letters, so that neither
    positions nor numbers can be continued as a pattern. The answer's schema requires one integer
    per name: none is forgotten or named twice. Passes are aggregated by Borda count, and the
    agreement of their halves is the weight (permutation self-consistency, arXiv 2310.07712). An
    answer that cannot be read, or that gives all texts one score, is no judgement.
    **Deviations** from ActiveLLM (arXiv 2405.10808): it asks for 32 of 200 texts in one answer,
    which large models mostly answer by position. Cost: `n_passes` readings of the texts.
    """

    def __init__(
        self, model: LanguageModel, *, question: str, group_size: int = 20, n_passes: int = 4
    ) -> None:
        self._model = model
        self._question = question
        self._group_size = group_size
        self._n_passes = n_passes

    def score(
        self, pool: PoolView, shortlist: Positions, *, rng: np.random.Generator
    ) -> ScoredTexts:
        """Score the texts of a shortlist; an LLM that cannot be asked has weight 0."""
        if pool.read_texts is None or len(shortlist) < 2:
            return _unscored(len(shortlist), "there are no texts to judge")
        texts = [slot_text(text)[:_MAX_TEXT_CHARS] for text in pool.read_texts(shortlist.tolist())]
        try:
            passes = [self._ask(texts, rng) for _ in range(self._n_passes)]
        except LanguageModelError as exc:
            return _unscored(len(shortlist), f"the LLM could not judge texts: {exc}")
        return _aggregate(passes, rng)

    def _ask(self, texts: Sequence[str], rng: np.random.Generator) -> _Pass:
        """Ask about all texts once, in groups of equal size but for one text."""
        info = self._model.describe()
        order = rng.permutation(len(texts))
        groups = np.array_split(order, max(1, round(len(texts) / self._group_size)))
        result = _Pass(np.full(len(texts), np.nan), np.zeros(len(texts), dtype=np.int64))
        for size in sorted({len(group) for group in groups}):
            equal = [group for group in groups if len(group) == size]
            names = draw_names(size, rng)
            decoding = Decoding(
                max_tokens=_TOKENS_PER_ITEM * size + 8,
                model=info.name,
                json_schema=scoring_schema(names) if info.constrains_json else None,
            )
            shown = ([texts[at] for at in group] for group in equal)
            prompts: list[Prompt] = [
                scoring_prompt(self._question, names, group) for group in shown
            ]
            if info.has_chat:
                prompts = [Conversation("", (str(prompt),)) for prompt in prompts]
            completions = self._model.complete(prompts, decoding)
            for group, completion in zip(equal, completions, strict=True):
                result.n_tokens += completion.n_tokens_in + completion.n_tokens_out
                scores, counts = parse_scores(completion, names)
                if size > 1 and len(np.unique(scores[~np.isnan(scores)])) == 1:
                    counts["undecided"] += size  # one score for all of them tells nothing apart
                    scores[:] = np.nan
                result.counts.update(counts)
                result.scores[group] = _standardized(scores)
                result.positions[group] = np.arange(size)
        return result


def _standardized(scores: Scores) -> Scores:
    known = scores[~np.isnan(scores)]
    mean = known.mean() if len(known) else 0.0
    spread = known.std() if len(known) and known.std() > 0 else 1.0
    return np.asarray((scores - mean) / spread)


def draw_names(n: int, rng: np.random.Generator) -> list[str]:
    """Return n different names of letters in random order, such as "qk"."""
    letters = string.ascii_lowercase
    drawn = rng.choice(len(letters) ** _N_ID_LETTERS, size=n, replace=False)
    return [letters[code // len(letters)] + letters[code % len(letters)] for code in drawn]


def scoring_prompt(question: str, names: Sequence[str], texts: Sequence[str]) -> str:
    """Return the prompt for one group; the part that is the same for all groups comes first."""
    items = "\n".join(f'{name}: "{text}"' for name, text in zip(names, texts, strict=True))
    return (
        f"People will label texts: {question}\n"
        f"Say for each text how much a label for it would teach a classifier, from 0 (nothing: "
        f"garbled, or like many others) to {MAX_SCORE} (much: clear and typical of its kind, "
        "or a case that others are judged by). Answer in JSON with one number for each name.\n\n"
        f"{items}\n\nJSON:"
    )


def scoring_schema(names: Sequence[str]) -> str:
    """Return the JSON schema of an answer: one required integer per name and nothing else."""
    number = {"type": "integer", "minimum": 0, "maximum": MAX_SCORE}
    properties = dict.fromkeys(names, number)
    schema = {"type": "object", "properties": properties, "required": list(names)}
    return json.dumps({**schema, "additionalProperties": False})


def parse_scores(completion: Completion, names: Sequence[str]) -> tuple[Scores, Counter[str]]:
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
    for at, name in enumerate(names):
        value = answer.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            counts["missing"] += 1
        elif not 0 <= value <= MAX_SCORE:
            counts["out_of_range"] += 1
        else:
            scores[at] = value
    counts["invented"] += len(set(answer) - set(names))
    return scores, +counts


def _aggregate(passes: Sequence[_Pass], rng: np.random.Generator) -> ScoredTexts:
    scores = np.array([one.scores for one in passes])
    reliability = split_half_reliability(scores, rng)
    bias = position_bias(scores, np.array([one.positions for one in passes]))
    is_reliable = reliability is not None and reliability >= _MIN_RELIABILITY
    weight = min(1.0, reliability or 0.0) if is_reliable else 0.0
    shown = "unknown" if reliability is None else f"{reliability:.2f}"
    warnings = [] if is_reliable else [_NOISE.format(reliability=shown)]
    if bias is not None and abs(bias) >= _MAX_POSITION_BIAS:
        warnings.append(_POSITION_BIAS.format(bias=bias))
    return ScoredTexts(
        scores=borda_count(scores),
        reliability=reliability,
        weight=weight,
        n_tokens=sum(one.n_tokens for one in passes),
        counts=dict(sum((one.counts for one in passes), Counter())),
        warnings=tuple(warnings),
    )


def _unscored(n_texts: int, why: str) -> ScoredTexts:
    return ScoredTexts(np.full(n_texts, 0.5), reliability=None, weight=0.0, warnings=(why,))


def borda_count(scores: Scores) -> Scores:
    """Return each text's mean normalized rank over the passes that scored it, in [0, 1].

    Borda's count over incomplete rankings: each pass's ranks are scaled to [0, 1], 1 for the best,
    before they are averaged. Ties share their mean rank; a text without any score gets 0.5.
    `scores` have one pass over m texts per row, shape (R, m), higher is better, NaN for none.
    """
    from scipy.stats import rankdata  # scipy.stats is slow to import, and the web process need not

    ranks = np.full(scores.shape, np.nan)
    for row, values in enumerate(scores):
        known = np.flatnonzero(~np.isnan(values))
        if len(known) > 1:
            ranks[row, known] = (rankdata(values[known]) - 1) / (len(known) - 1)
        elif len(known) == 1:
            ranks[row, known] = 0.5
    n_scored = (~np.isnan(ranks)).sum(axis=0)
    total = np.nansum(ranks, axis=0)
    return np.where(n_scored > 0, total / np.maximum(n_scored, 1), 0.5)


def split_half_reliability(scores: Scores, rng: np.random.Generator) -> float | None:
    """Return how well one half of the passes (R, m) predicts the other, stepped up to all.

    Spearman's correlation of the halves' Borda counts, averaged over 8 random splits, then the
    Spearman-Brown formula 2r / (1 + r); in [-1, 1]. None under two passes or 8 texts scored in all.
    """
    scores = scores[:, ~np.isnan(scores).any(axis=0)]
    if len(scores) < 2 or scores.shape[1] < _MIN_TEXTS:
        return None
    correlations = []
    for _ in range(_N_SPLITS):
        order = rng.permutation(len(scores))
        half = len(scores) // 2
        halves = borda_count(scores[order[:half]]), borda_count(scores[order[half:]])
        correlations.append(rank_correlation(*halves))
    mean = float(np.mean(correlations))
    return 2 * mean / (1 + mean) if mean > -1 / 3 else -1.0


def position_bias(scores: Scores, positions: NDArray[np.int64]) -> float | None:
    """Return Spearman's correlation of score and position in the prompt; None under 8 scores.

    Both have one pass over m texts per row, shape (R, m); `scores` is NaN where there is none.
    """
    is_known = ~np.isnan(scores)
    if is_known.sum() < _MIN_TEXTS:
        return None
    return rank_correlation(scores[is_known], positions[is_known].astype(float))
