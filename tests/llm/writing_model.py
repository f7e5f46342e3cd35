"""A fake language model that writes its answers out, or offers what the plain fake does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from backend.domain.ports import Completion, Decoding, LanguageModelInfo, Prompt
from tests.fakes import FakeLanguageModel


class WritingModel(FakeLanguageModel):
    """Answers each prompt with `writes(prompt)`, without probabilities.

    `decodings` records how the answers were asked for.
    """

    def __init__(self, writes: Callable[[str], str], **offers: bool) -> None:
        super().__init__(n_top_logprobs=0)
        self.writes = writes
        self.offers = offers
        self.decodings: list[Decoding] = []
        self.mean_logprob: float | None = None
        self.finish_reason: str | None = None

    def describe(self, *, deadline_s: float | None = None) -> LanguageModelInfo:
        return replace(super().describe(deadline_s=deadline_s), **self.offers)

    def complete(
        self, prompts: Sequence[Prompt], decoding: Decoding, *, deadline_s: float | None = None
    ) -> list[Completion]:
        self.decodings.append(decoding)
        answers = super().complete(prompts, decoding, deadline_s=deadline_s)
        return [
            replace(
                answer,
                text=self.writes(str(prompt)),
                mean_logprob=self.mean_logprob,
                finish_reason=self.finish_reason,
            )
            if answer.failure is None
            else answer
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
