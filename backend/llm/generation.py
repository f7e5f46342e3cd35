"""Demonstrations without any label: texts that the LLM writes."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import Answer, Demonstration, Example
from backend.domain.ports import Annotator, Completion, Decoding, LanguageModel
from backend.domain.questions import LabelDefinition, Question, TaskSchema
from backend.llm.prompts.templates import clean_instruction, display_name, one_line, slot_text

_MAX_PASSES = 3
_SURPLUS = 2.0
"""Texts requested per text still missing: a good part is dropped."""
_N_STYLE_TEXTS = 4
_MAX_STYLE_CHARS = 400
_MAX_LINE_CHARS = 500
_MIN_TOKENS, _MAX_TOKENS = 24, 160
_CHARS_PER_TOKEN = 3
_TEMPERATURE = 0.8
_MAX_JACCARD = 0.5
_MAX_CONTAINMENT = 0.6
_MAX_POOL_TEXTS_COMPARED = 5000
_N_FEATURES = 2**20

LabeledTexts = tuple[LabelDefinition, dict[str, str]]
"""Texts by field name, and the label that they were written for."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """The question to write demonstrations for, and how many.

    A few of the `examples`, unlabeled texts of the project, show each prompt the style.
    """

    schema: TaskSchema
    question: Question
    instruction: str
    examples: Sequence[Example]
    n_per_class: int = 40
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """The demonstrations, label by label, and the numbers of requested texts by outcome.

    Counted are "n_unreadable", "n_duplicates", "n_rejected", "n_surplus" and "n_kept", which add up
    to "n_asked".
    """

    demonstrations: tuple[Demonstration, ...]
    counts: Mapping[str, int]


def can_generate(question: Question) -> bool:
    """Return whether texts can be generated for a question: its labels are of whole texts."""
    return bool(question.labels) and question.kind.has_posterior


def generate_demonstrations(
    model: LanguageModel,
    annotator: Annotator,
    request: GenerationRequest,
    *,
    rng: np.random.Generator,
) -> Generated:
    """Generate labeled texts in the project's style, and keep those that the annotator confirms.

    Each prompt shows a few unlabeled texts and asks for one text of one label, as many per label.
    A text is dropped when it is cut, a near-duplicate of another or of a piece of a pool text, or
    when the annotator gives it another label. FreeAL (arXiv 2311.15614), section 3.2, round 1.

    **Deviations**: one label per prompt, where the paper asks for 100 pairs at once, which a small
    model cannot keep balanced; the annotator's posterior is divided by its mean over the texts of
    all labels before it is read, since those are balanced by construction and a small model
    prefers one answer; up to three passes, so that a label may end with fewer.

    Cost: up to six prompts of about 60 tokens out per demonstration, and one annotation each.

    Raises:
        LanguageModelUnavailable: the model cannot be reached.
        ValueError: the question's labels are not of whole texts.
    """
    question = request.question
    if not can_generate(question):
        raise ValueError(f"no texts can be written for a question of kind {question.kind}")
    writer = _TextWriter(model, request, rng)
    kept: dict[str, list[dict[str, str]]] = {label.value: [] for label in question.labels}
    counts: Counter[str] = Counter()
    for _ in range(_MAX_PASSES if writer.styles else 0):
        wanted = [
            label
            for label in question.labels
            for _ in range(math.ceil(_SURPLUS * (request.n_per_class - len(kept[label.value]))))
        ]
        if not wanted:
            break
        written = writer.write(wanted)
        fresh = writer.without_duplicates(written)
        confirmed = _confirmed(annotator, request, fresh)
        n_before = sum(map(len, kept.values()))
        for label, texts in confirmed:
            if len(kept[label.value]) < request.n_per_class:
                kept[label.value].append(texts)
        n_kept = sum(map(len, kept.values())) - n_before
        counts.update(
            n_asked=len(wanted),
            n_unreadable=len(wanted) - len(written),
            n_duplicates=len(written) - len(fresh),
            n_rejected=len(fresh) - len(confirmed),
            n_surplus=len(confirmed) - n_kept,
            n_kept=n_kept,
        )
    demonstrations = tuple(
        Demonstration(texts, Answer(labels=(value,)), "generated")
        for value, of_label in kept.items()
        for texts in of_label
    )
    return Generated(demonstrations, counts)


def ngram_overlap(
    texts: Sequence[str], others: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the Jaccard index and the containment of word 1- to 3-grams, each (n, m) in [0, 1].

    The containment is the share of the text's own n-grams that the other has too: 1 for a piece cut
    out of it. Case and punctuation do not count; a text without words overlaps with none.
    """
    if not texts or not others:
        empty = np.zeros((len(texts), len(others)))
        return empty, empty
    from sklearn.feature_extraction.text import HashingVectorizer  # slow to import

    vectorizer = HashingVectorizer(
        n_features=_N_FEATURES,
        ngram_range=(1, 3),
        binary=True,
        norm=None,
        alternate_sign=False,
        token_pattern=r"\w+",  # noqa: S106 - a regular expression
    )
    left, right = vectorizer.transform(texts), vectorizer.transform(others)
    n_shared = np.asarray((left @ right.T).todense(), dtype=np.float64)
    n_left = np.asarray(left.sum(axis=1), dtype=np.float64).reshape(-1, 1)
    n_right = np.asarray(right.sum(axis=1), dtype=np.float64).reshape(1, -1)
    n_union = n_left + n_right - n_shared
    return n_shared / np.maximum(n_union, 1.0), n_shared / np.maximum(n_left, 1.0)


class _TextWriter:
    """Prompts the model for new texts, and compares them with those that were written before."""

    def __init__(
        self, model: LanguageModel, request: GenerationRequest, rng: np.random.Generator
    ) -> None:
        self._model = model
        self._question = request.question
        self._deadline_s = request.deadline_s
        self._rng = rng
        shown = (*request.schema.headers, *request.question.headers)
        headers = [one_line(header) for header in shown]
        lines = [clean_instruction(request.instruction), *headers]
        self._opening = "".join(f"{line[:_MAX_LINE_CHARS]}\n" for line in lines if line)
        names = [text_field.name for text_field in request.question.fields]
        whole = [one for one in request.examples if all(one.texts.get(n) for n in names)]
        self.styles = [
            {name: slot_text(one.texts[name])[:_MAX_STYLE_CHARS] for name in names} for one in whole
        ]
        self._known: list[str] = []

    def write(self, labels: Sequence[LabelDefinition]) -> list[LabeledTexts]:
        """Return the texts that were written, each with the label that it was written for."""
        n_chars = int(np.quantile([len(" ".join(one.values())) for one in self.styles], 0.9))
        decoding = Decoding(
            max_tokens=min(_MAX_TOKENS, max(_MIN_TOKENS, n_chars // _CHARS_PER_TOKEN)),
            temperature=_TEMPERATURE,
            seed=int(self._rng.integers(2**31)),
            stop=("\n\n",) if len(self._question.fields) > 1 else ("\n",),
        )
        prompts = [self._prompt(label) for label in labels]
        completions = self._model.complete(prompts, decoding, deadline_s=self._deadline_s)
        parsed = [self._parse(completion) for completion in completions]
        return [(label, texts) for label, texts in zip(labels, parsed, strict=True) if texts]

    def without_duplicates(self, written: Sequence[LabeledTexts]) -> list[LabeledTexts]:
        """Return the texts that are no near-duplicates of an earlier one or of a pool text."""
        lines = [" ".join(texts.values()) for _, texts in written]
        pool = [" ".join(style.values()) for style in self.styles[:_MAX_POOL_TEXTS_COMPARED]]
        to_pool, within_pool = ngram_overlap(lines, pool)
        is_copy = (to_pool >= _MAX_JACCARD) | (within_pool >= _MAX_CONTAINMENT)
        to_known, _ = ngram_overlap(lines, self._known)
        to_each_other, _ = ngram_overlap(lines, lines)
        kept: list[int] = []
        for at in range(len(written)):
            is_known = bool((to_known[at] >= _MAX_JACCARD).any())
            is_repeated = any(to_each_other[at, other] >= _MAX_JACCARD for other in kept)
            if not is_copy[at].any() and not is_known and not is_repeated:
                kept.append(at)
        self._known += [lines[at] for at in kept]
        return [written[at] for at in kept]

    def _prompt(self, label: LabelDefinition) -> str:
        drawn = self._rng.choice(
            len(self.styles), size=min(_N_STYLE_TEXTS, len(self.styles)), replace=False
        )
        shown = ""
        for at in drawn:
            fields = (f'{display_name(name)}: "{text}"' for name, text in self.styles[at].items())
            shown += "\n".join(fields) + "\n\n"
        meaning = f" ({one_line(label.hint)})" if label.hint else ""
        asked = f"{display_name(self._question.name)}: {one_line(label.name)}{meaning}"
        return f'{self._opening}\n{shown}{asked}\n{display_name(self._question.field.name)}: "'

    def _parse(self, completion: Completion) -> dict[str, str] | None:
        """Return the texts of a completion; None unless each of them is whole."""
        if completion.failure is not None or completion.finish_reason == "length":
            return None
        rest, texts = completion.text, {}
        for position, text_field in enumerate(self._question.fields):
            if position:
                name = re.escape(display_name(text_field.name))
                opened = re.match(rf'\s*{name}: "', rest)
                if opened is None:
                    return None
                rest = rest[opened.end() :]
            text, _, rest = rest.partition('"')
            texts[text_field.name] = slot_text(text)
        return texts if all(re.search(r"\w", text) for text in texts.values()) else None


def _confirmed(
    annotator: Annotator, request: GenerationRequest, written: Sequence[LabeledTexts]
) -> list[LabeledTexts]:
    """Return the texts to which the annotator gives the label that they were written for."""
    if not written:
        return []
    examples = [Example(at, texts) for at, (_, texts) in enumerate(written)]
    schema = replace(request.schema, questions=(request.question,))
    weak_labels = annotator.annotate(
        schema, request.instruction, examples, deadline_s=request.deadline_s
    )
    values = [label.value for label in request.question.labels]
    wanted = np.array([values.index(label.value) for label, _ in written])
    is_read = np.array([len(weak.probabilities) == len(values) for weak in weak_labels])
    uniform = (1.0 / len(values),) * len(values)
    posteriors = np.array([weak.probabilities or uniform for weak in weak_labels])
    if request.question.kind.is_exclusive:
        labels = np.unique(wanted)
        if len(labels) == posteriors.shape[1]:  # over the mean, in which labels count alike
            mean = np.mean([posteriors[wanted == label].mean(axis=0) for label in labels], axis=0)
            posteriors = posteriors / np.maximum(mean, 1e-12)
        is_right = posteriors.argmax(axis=1) == wanted
    else:
        is_right = posteriors[np.arange(len(wanted)), wanted] >= 0.5
    return [written[at] for at in np.flatnonzero(is_read & is_right)]
