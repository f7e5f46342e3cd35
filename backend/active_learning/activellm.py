"""The default query strategy: soft coverage times uncertainty times class quotas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.coverage import (
    CoverageProblem,
    best_similarity,
    greedy_cover,
    greedy_herd,
    near_duplicates,
    sample_similarities,
    subsample,
)
from backend.active_learning.diagnostics import diagnose
from backend.active_learning.informativeness import LLMInformativenessScorer, ScoredTexts
from backend.active_learning.pool_estimate import (
    ActiveLLMSettings,
    PoolEstimate,
    Probabilities,
    impute_missing,
)
from backend.active_learning.strategy_interface import Ordering, PoolView, Positions
from backend.domain.labels import N_NEXT_ANSWERS

_SIMILAR_QUANTILE = 0.98
"""Two texts are called similar when their cosine is above that of so many pairs of the pool."""
_UNINFORMATIVE = (
    "the annotators agree no more than by chance (kappa {kappa:.2f}): the first tasks are a "
    "representative set, chosen without them"
)


class ActiveLLMStrategy:
    """Order a pool by soft coverage, uncertainty and class quotas; an LLM may score a shortlist.

    Each next text is the one that covers most of what is not yet similar to something chosen or
    labeled, where texts count by their uncertainty and classes below their target come first;
    near-duplicates of earlier texts go to the end. Where the annotators agree no more than by
    chance, the first texts are a representative set instead. Uncertainty herding (arXiv 2412.20644,
    section 3) on frozen sentence embeddings, with ActiveLLM's idea (arXiv 2405.10808) of asking an
    LLM before there is any label: its label posteriors give uncertainty and pseudo-classes, its
    scores of informativeness count as far as they prove repeatable.

    **Deviations**: the published "pick 32 of 200" is `PaperActiveLLM`; its released answers are
    mostly the head of the list, so that an LLM here is asked in small groups and measured. The
    herding paper's kernel width follows the labeled points; here it follows the pool's mean
    distance, as one width for all pools loses on most. Class quotas are ours, against one-sided
    first picks. Cost: O(c r) memory and time for c candidates and r references (8,000 x 4,000);
    seconds and memory are in docs/benchmarks/first-order.md.
    """

    name = "activellm"

    def __init__(
        self,
        *,
        scorer: LLMInformativenessScorer | None = None,
        settings: ActiveLLMSettings | None = None,
    ) -> None:
        self._scorer = scorer
        self._settings = settings or ActiveLLMSettings()

    def order(self, pool: PoolView, *, rng: np.random.Generator) -> Ordering:
        """Order all open positions: pinned ones, the greedy head, the rest, near-duplicates."""
        duplicates = self._duplicates(pool, rng)
        pinned = [at for at in sorted(pool.pinned) if at not in pool.labeled]
        free = np.setdiff1d(pool.open_positions, [*pinned, *duplicates])
        estimate = PoolEstimate.of(pool, self._settings)
        head, covers, scored = self._head(pool, free, estimate, pinned, rng)
        rest = np.setdiff1d(free, head)
        rest = rest[np.argsort(-estimate.uncertainty[rest], kind="stable")]
        repeats = sorted(set(duplicates) - set(pinned))
        positions = np.array([*pinned, *head, *rest, *repeats], dtype=np.int64)
        reasons = (
            *(f"pinned to the front: {pool.pinned[at]}" for at in pinned),
            *(
                f"covers {n} similar text{'s' if n != 1 else ''}; {estimate.describe(pool, at)}"
                for at, n in zip(head.tolist(), covers.tolist(), strict=True)
            ),
            *(estimate.describe(pool, at) for at in rest.tolist()),
            *(f"says nearly the same as task {pool.example_ids[duplicates[at]]}" for at in repeats),
        )
        diagnostics = diagnose(pool, positions, rng)
        if scored is not None:
            diagnostics = replace(
                diagnostics,
                split_half_reliability=scored.reliability,
                judgement_weight=scored.weight,
                n_tokens=scored.n_tokens,
                counts=scored.counts,
                warnings=diagnostics.warnings + scored.warnings,
            )
        if estimate.annotators_uninformative:
            warning = _UNINFORMATIVE.format(kappa=pool.agreement)
            diagnostics = replace(diagnostics, warnings=(*diagnostics.warnings, warning))
        diagnostics = replace(
            diagnostics,
            n_near_duplicates=len(repeats),
            expected_corrections=estimate.expected_corrections(positions[:N_NEXT_ANSWERS]),
        )
        return Ordering(positions, reasons, diagnostics)

    def _duplicates(self, pool: PoolView, rng: np.random.Generator) -> dict[int, int]:
        """Return open texts that repeat a labeled or an earlier text, and which one."""
        order = np.concatenate([pool.labeled_positions, pool.open_positions])
        threshold = self._settings.duplicate_similarity
        repeats = near_duplicates(pool.embeddings, order, threshold=threshold, rng=rng)
        return {at: first for at, first in repeats.items() if at not in pool.labeled}

    def _head(
        self,
        pool: PoolView,
        free: Positions,
        estimate: PoolEstimate,
        pinned: Sequence[int],
        rng: np.random.Generator,
    ) -> tuple[Positions, NDArray[np.int64], ScoredTexts | None]:
        """Return the texts chosen greedily, how many similar ones each covers, and the scores."""
        settings = self._settings
        candidates = subsample(free, settings.n_candidates, rng)
        references = subsample(np.arange(len(pool)), settings.n_references, rng)
        chosen = np.concatenate([pool.labeled_positions, np.array(pinned, dtype=np.int64)])
        used = np.unique(np.concatenate([candidates, references, chosen]))
        vectors = estimate.with_label_similarity(pool.embeddings, used, settings.label_share)
        at_candidates, at_references, at_chosen = (
            np.searchsorted(used, rows) for rows in (candidates, references, chosen)
        )
        problem = CoverageProblem(
            similarities=vectors[at_candidates] @ vectors[at_references].T,
            weights=estimate.weights[references].astype(np.float32),
            covered=best_similarity(vectors, at_references, at_chosen),
            own_gains=estimate.corrections[candidates] / settings.reach,
        )
        pairs = sample_similarities(vectors, rng)
        width = max(1e-3, settings.width_share * float((1 - pairs).mean())) if len(pairs) else 1.0
        scored = None
        if estimate.annotators_uninformative:
            own, all_texts = vectors[at_candidates], vectors[at_references]
            picks = greedy_herd(own, all_texts, vectors[at_chosen], settings.n_head, width=width)
        else:
            preference = _Preference.of(pool, estimate, candidates, settings)
            if self._scorer is not None:
                prefer = preference.factors
                short = greedy_cover(problem, settings.n_shortlist, width=width, prefer=prefer)
                scored = self._scorer.score(pool, candidates[short], rng=rng)
                preference = preference.with_scores(short, scored, settings.scorer_strength)
            picks = greedy_cover(problem, settings.n_head, width=width, prefer=preference.factors)
        threshold = float(np.quantile(pairs, _SIMILAR_QUANTILE)) if len(pairs) else 1.0
        n_similar = _n_newly_similar(problem, picks, threshold) * len(pool)
        covers = np.rint(n_similar / max(1, len(references))).astype(np.int64)
        return candidates[picks], covers, scored


@dataclass(frozen=True, slots=True, eq=False)
class _Preference:
    """Prefer candidates with a high margin, of classes that have fewer picks than their target.

    A candidate's factor is its margin factor times sum_c p_c (target_c / share_c)^quota_power,
    `share_c` being class c's smoothed share of labels and picks, counted by probability.
    """

    margin_factors: NDArray[np.float64]
    probabilities: Probabilities | None
    targets: NDArray[np.float64]
    label_counts: NDArray[np.float64]
    quota_power: float

    @classmethod
    def of(
        cls,
        pool: PoolView,
        estimate: PoolEstimate,
        candidates: Positions,
        settings: ActiveLLMSettings,
    ) -> _Preference:
        factors = estimate.margin_factors[candidates]
        if estimate.probabilities is None:
            return cls(factors, None, np.ones(1), np.zeros(1), 0.0)
        known = impute_missing(estimate.probabilities)
        n_classes = known.shape[1]
        targets = settings.prior_share * known.mean(axis=0) + (1 - settings.prior_share) / n_classes
        labels = [label for label in pool.labeled.values() if label is not None]
        label_counts = np.bincount(labels, minlength=n_classes).astype(float)
        power = settings.quota_power * (1 - pool.prelabeled_share)
        return cls(factors, known[candidates], targets, label_counts, power)

    def with_scores(self, short: list[int], scored: ScoredTexts, strength: float) -> _Preference:
        """Return the preference with a shortlist's factors moved by an LLM's scores."""
        if scored.weight == 0:
            return self
        factors = self.margin_factors.copy()
        factors[short] *= np.exp(strength * scored.weight * (2 * scored.scores - 1))
        return replace(self, margin_factors=factors)

    def factors(self, picks: list[int]) -> NDArray[np.float64]:
        """Return the factor of every candidate after these picks."""
        if self.probabilities is None:
            return self.margin_factors
        counts = self.label_counts + self.probabilities[picks].sum(axis=0)
        n_classes = len(self.targets)
        shares = (counts + n_classes * self.targets) / (counts.sum() + n_classes)
        quotas = self.probabilities @ (self.targets / shares) ** self.quota_power
        return np.asarray(self.margin_factors * quotas)


def _n_newly_similar(
    problem: CoverageProblem, picks: Sequence[int], threshold: float
) -> NDArray[np.int64]:
    """Return how many references each pick is the first to be similar to."""
    is_similar = problem.covered >= threshold
    counts = np.zeros(len(picks), dtype=np.int64)
    for place, pick in enumerate(picks):
        is_new = (problem.similarities[pick] >= threshold) & ~is_similar
        counts[place] = is_new.sum()
        is_similar |= is_new
    return counts
