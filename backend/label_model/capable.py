"""What a label model assumes of a capable LLM: more than of similarity beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.domain.labels import AnnotatorKind
from backend.label_model.class_shares import shares_by_agreement
from backend.label_model.latent_class import Floats

_OF_SIMILARITY = 0.5
"""Chosen, with the shares, on 300 training texts each of sst2, mr, trec, ag_news, sms_spam,
amazon_cf_en, tweet_hate and tweet_offensive with the 1.5B model."""


@dataclass(frozen=True, slots=True)
class CapableLLM:
    """Names of an LLM that reads a text alike whatever the prompt, and of similarity.

    The labels of such a model and those of similarity agree on the question, so that the shares of
    two classes can be taken from where they agree; and it is more often right.
    """

    llm: str
    similarity: str

    @classmethod
    def of(
        cls, kinds: Mapping[str, AnnotatorKind], report: Mapping[str, Any] | None
    ) -> CapableLLM | None:
        """Return the annotators by their kinds, if the comparison of templates says so.

        Args:
            kinds: by annotator.
            report: `TemplateReport` as JSON, None where no templates were compared.
        """
        names = {kind: name for name, kind in kinds.items()}
        llm, similarity = names.get(AnnotatorKind.LLM), names.get(AnnotatorKind.SIMILARITY)
        if not (report or {}).get("has_alike_templates") or llm is None or similarity is None:
            return None
        return cls(llm, similarity)

    def parameters(
        self, posteriors: Mapping[str, Floats]
    ) -> tuple[Floats | None, Mapping[str, float]]:
        """Return two classes' shares (2,), and factors of annotators' weights by name.

        The shares are where both agree, None for more classes; without one of them nothing is said.
        """
        if not {self.llm, self.similarity} <= posteriors.keys():
            return None, {}
        own, other = posteriors[self.llm], posteriors[self.similarity]
        shares = shares_by_agreement(own, [other]) if own.shape[1] == 2 else None
        return shares, {self.similarity: _OF_SIMILARITY}
