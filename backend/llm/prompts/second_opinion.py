"""Ask a second template about the texts where the first is unsure, and join both answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from backend.domain.labels import WeakLabel
from backend.label_model.latent_class import Standardizer, is_answered

Floats = NDArray[np.float64]
AskAgain = Callable[[Sequence[int]], Sequence[WeakLabel]]


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """Which texts get a second answer, and how two answers become one.

    Both are standardized by what each template says over the selection's texts. Two answers of
    unit variance and correlation r are worth their sum over 1 + r: as much as one where they never
    differ, twice as much where they err independently.

    Args:
        template: the second template.
        first, second: the standardizers of both templates' posteriors.
        correlation: of their standardized log-probabilities.
        max_margin: the first answer's lead over its second label, in standardized nats, up to which
            a text is asked about again.
    """

    template: str
    first: Standardizer
    second: Standardizer
    correlation: float
    max_margin: float

    @classmethod
    def fit(
        cls, template: str, first: Floats, second: Floats, *, share: float
    ) -> SecondOpinion | None:
        """Fit to posteriors (n, K) of the same texts; `share` of the texts shall be asked again.

        None where nothing is to be asked, or fewer than two texts have both answers.
        """
        both = is_answered(first) & is_answered(second)
        if share <= 0 or both.sum() < 2:
            return None
        standardizers = Standardizer.fit(first[both]), Standardizer.fit(second[both])
        a, b = standardizers[0].transform(first[both]), standardizers[1].transform(second[both])
        spread = float(np.sqrt((a**2).sum() * (b**2).sum()))
        correlation = float((a * b).sum()) / spread if spread > 0 else 1.0
        margins = _margins(a)
        limit = float(np.quantile(margins, min(1.0, share)))
        return cls(template, *standardizers, max(0.0, correlation), limit)

    def is_unsure(self, posteriors: Floats) -> NDArray[np.bool_]:
        """Return for each posterior (n, K) whether the text is to be asked about again."""
        answered = is_answered(posteriors)
        unsure = np.zeros(len(posteriors), dtype=bool)
        unsure[answered] = _margins(self.first.transform(posteriors[answered])) <= self.max_margin
        return unsure

    def complete(
        self, labels: Sequence[WeakLabel], posteriors: Floats, ask_again: AskAgain
    ) -> list[WeakLabel]:
        """Return the labels, those that are unsure joined with a second answer.

        Args:
            labels: the first answers about some texts.
            posteriors: theirs (n, K), NaN rows for abstentions.
            ask_again: returns the second template's labels of the texts at these positions.
        """
        joined = list(labels)
        rows = np.flatnonzero(self.is_unsure(posteriors)).tolist()
        if rows:
            both = self.join([labels[row] for row in rows], ask_again(rows))
            for row, label in zip(rows, both, strict=True):
                joined[row] = label
        return joined

    def join(self, first: Sequence[WeakLabel], second: Sequence[WeakLabel]) -> list[WeakLabel]:
        """Return the labels of both answers about the same texts, in the first one's scale."""
        return [self._joined(a, b) for a, b in zip(first, second, strict=True)]

    def _joined(self, first: WeakLabel, second: WeakLabel) -> WeakLabel:
        if not (first.probabilities and second.probabilities):
            return first
        a = self.first.transform(np.array([first.probabilities]))
        b = self.second.transform(np.array([second.probabilities]))
        joined = self.first.mean + self.first.spread * (a + b) / (1 + self.correlation)
        return replace(
            first,
            probabilities=tuple(softmax(joined[0]).tolist()),
            prompt_version=f"{first.prompt_version}+{self.template}",
            n_tokens_in=first.n_tokens_in + second.n_tokens_in,
            n_tokens_out=first.n_tokens_out + second.n_tokens_out,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `from_json`."""
        return {
            "template": self.template,
            "first": self.first.to_json(),
            "second": self.second.to_json(),
            "correlation": self.correlation,
            "max_margin": self.max_margin,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SecondOpinion:
        """Read what `to_json` wrote."""
        return cls(
            str(data["template"]),
            Standardizer.from_json(data["first"]),
            Standardizer.from_json(data["second"]),
            float(data["correlation"]),
            float(data["max_margin"]),
        )


def _margins(scores: Floats) -> Floats:
    """Return the lead of each row's highest score over its second, shape (n,)."""
    ordered = np.sort(scores, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])
