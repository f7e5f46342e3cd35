"""Run an LLM in this process with transformers: for machines with a GPU and no LLM server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from backend.domain.ports import Completion, Decoding, LanguageModelInfo, Prompt
from backend.llm.client.json_grammar import compact_grammar
from backend.llm.client.requests import messages_of

_N_CONTEXT_TOKENS = 2048
"""As `backend llm` starts vLLM, so that both cut texts at the same place."""
_BATCH_TOKENS = 32_768
_GRAMMARS = "xgrammar"  # installed with vLLM, not with the backend


class LocalLanguageModel:
    """Answers as a vLLM server does, with the weights of a folder, in bfloat16.

    Probabilities of named tokens are those of the whole vocabulary, and JSON is held to the grammar
    that the backend sends to vLLM, by the same library (xgrammar). Prompts of about one length are
    answered together. Calls from several threads wait for one another.

    Args:
        folder: a model with its tokenizer, as transformers saves them.
    """

    def __init__(self, folder: Path) -> None:
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        self._model = model.to(self._device).eval()
        ends = model.generation_config.eos_token_id
        self._ends = {*(ends if isinstance(ends, list) else [ends]), self._tokenizer.eos_token_id}
        self._name = folder.name.lower()
        self._compiler: Any = None
        self._lock = threading.Lock()

    def describe(self, *, deadline_s: float | None = None) -> LanguageModelInfo:
        """Return what a vLLM server with this model offers."""
        return LanguageModelInfo(
            name=self._name,
            n_context_tokens=_N_CONTEXT_TOKENS,
            reads_token_ids=True,
            n_top_logprobs=20,
            constrains_choices=True,
            constrains_json=True,
            has_chat=self._tokenizer.chat_template is not None,
        )

    def tokenize(self, text: str, *, deadline_s: float | None = None) -> tuple[int, ...]:
        """Return the token ids of `text`, without special tokens added."""
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def truncate(self, text: str, n_tokens: int, *, deadline_s: float | None = None) -> str:
        """Return the longest prefix of `text` that has at most `n_tokens` tokens."""
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in found["offset_mapping"]]
        return text if len(ends) <= n_tokens else text[: ends[n_tokens - 1] if n_tokens else 0]

    def complete(
        self, prompts: Sequence[Prompt], decoding: Decoding, *, deadline_s: float | None = None
    ) -> list[Completion]:
        """Complete each prompt; same length and order as `prompts`."""
        rows = [self._token_ids(prompt) for prompt in prompts]
        answers: dict[int, Completion] = {}
        with self._lock, torch.inference_mode():
            for batch in _batches(rows, decoding.max_tokens):
                some = [rows[at] for at in batch]
                answer = self._first_tokens if decoding.token_ids else self._write
                answers |= dict(zip(batch, answer(some, decoding), strict=True))
        return [answers[at] for at in range(len(rows))]

    def _token_ids(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            return list(self._tokenizer(prompt)["input_ids"])
        text = self._tokenizer.apply_chat_template(
            messages_of(prompt, with_system=True), tokenize=False, add_generation_prompt=True
        )
        return list(self.tokenize(text))

    def _first_tokens(self, rows: list[list[int]], decoding: Decoding) -> list[Completion]:
        """Return the log-probabilities of the named tokens at the first position."""
        ids, mask = self._padded(rows)
        logprobs, _ = self._next_tokens(ids, mask, None)
        named = logprobs[:, list(decoding.token_ids)].cpu().tolist()
        return [
            Completion(
                logprobs=dict(zip(decoding.token_ids, values, strict=True)),
                finish_reason="length",
                n_tokens_in=len(row),
                n_tokens_out=1,
            )
            for row, values in zip(rows, named, strict=True)
        ]

    def _write(self, rows: list[list[int]], decoding: Decoding) -> list[Completion]:
        """Write answers token by token; greedily, or drawn where there is a temperature."""
        generator = torch.Generator(self._device).manual_seed(decoding.seed or 0)
        answers = [_Answer(decoding.stop, self._ends, self._tokenizer) for _ in rows]
        for answer, matcher in zip(answers, self._matchers(decoding, len(rows)), strict=False):
            answer.matcher = matcher
        ids, mask = self._padded(rows)
        cache, is_open = None, answers
        for _ in range(decoding.max_tokens):
            logprobs, cache = self._next_tokens(ids, mask, cache)
            allowed = self._allowed(logprobs, is_open)
            if decoding.temperature > 0:
                shares = torch.softmax(allowed / decoding.temperature, dim=-1)
                ids = torch.multinomial(shares, 1, generator=generator)
            else:
                ids = allowed.argmax(dim=-1, keepdim=True)
            values = allowed.gather(1, ids)[:, 0].tolist()
            for answer, token, value in zip(is_open, ids[:, 0].tolist(), values, strict=True):
                answer.add(token, value)
            left = [at for at, answer in enumerate(is_open) if not answer.is_finished]
            if not left:
                break
            if len(left) < len(is_open):
                kept = torch.tensor(left, device=self._device)
                cache.batch_select_indices(kept)
                ids, mask = ids[kept], mask[kept]
                is_open = [is_open[at] for at in left]
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        return [answer.completion(len(row)) for answer, row in zip(answers, rows, strict=True)]

    def _padded(self, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids and mask, padded at the left so that all rows end together."""
        n_longest = max(map(len, rows))
        ids = [[0] * (n_longest - len(row)) + row for row in rows]
        mask = [[0] * (n_longest - len(row)) + [1] * len(row) for row in rows]
        return torch.tensor(ids, device=self._device), torch.tensor(mask, device=self._device)

    def _next_tokens(
        self, ids: torch.Tensor, mask: torch.Tensor, cache: Any
    ) -> tuple[torch.Tensor, Any]:
        """Return the log-probabilities (n, vocabulary) of the next token, and the model's cache."""
        places = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        found = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return torch.log_softmax(found.logits[:, -1].float(), dim=-1), found.past_key_values

    def _matchers(self, decoding: Decoding, n_rows: int) -> list[Any]:
        """Return what holds each row's answer to its grammar; none where the answer is free."""
        if decoding.json_schema is None and not decoding.choices:
            return []
        xgrammar: Any = import_module(_GRAMMARS)
        if self._compiler is None:
            info = xgrammar.TokenizerInfo.from_huggingface(
                self._tokenizer, vocab_size=self._model.config.vocab_size
            )
            self._compiler = xgrammar.GrammarCompiler(info)
        grammar = _grammar(decoding)
        if grammar is None:
            compiled = self._compiler.compile_json_schema(str(decoding.json_schema))
        else:
            compiled = self._compiler.compile_grammar(grammar)
        return [xgrammar.GrammarMatcher(compiled) for _ in range(n_rows)]

    def _allowed(self, logprobs: torch.Tensor, answers: list[_Answer]) -> torch.Tensor:
        """Return the log-probabilities among the tokens that the answers' grammars allow."""
        if answers[0].matcher is None:
            return logprobs
        xgrammar: Any = import_module(_GRAMMARS)
        n_rows, n_tokens = logprobs.shape
        bits = xgrammar.allocate_token_bitmask(n_rows, n_tokens)
        for at, answer in enumerate(answers):
            answer.matcher.fill_next_token_bitmask(bits, at)
        held = logprobs.clone()
        xgrammar.apply_token_bitmask_inplace(held, bits.to(self._device))
        return torch.log_softmax(held, dim=-1)


class _Answer:
    """An answer that is being written; `matcher` holds it to a grammar, None for a free one."""

    def __init__(self, stop: Sequence[str], ends: set[int], tokenizer: Any) -> None:
        self._stop, self._ends, self._tokenizer = stop, ends, tokenizer
        self._tokens: list[int] = []
        self._values: list[float] = []
        self.matcher: Any = None
        self.is_finished = False

    def add(self, token: int, logprob: float) -> None:
        """Add a token; the answer ends with an end token, a stop text or its grammar."""
        self._tokens.append(token)
        self._values.append(logprob)
        is_end = token in self._ends
        if self.matcher is not None:
            is_end |= not self.matcher.accept_token(token) or self.matcher.is_terminated()
        self.is_finished = is_end or bool(self._stop and self._cut(self._text()) != self._text())

    def completion(self, n_tokens_in: int) -> Completion:
        """Return the answer as a server would."""
        return Completion(
            text=self._cut(self._text()),
            mean_logprob=min(0.0, float(np.mean(self._values))),
            finish_reason="stop" if self.is_finished else "length",
            n_tokens_in=n_tokens_in,
            n_tokens_out=len(self._tokens),
        )

    def _text(self) -> str:
        written = [token for token in self._tokens if token not in self._ends]
        return str(self._tokenizer.decode(written))

    def _cut(self, text: str) -> str:
        for stop in self._stop:
            text = text.split(stop, 1)[0]
        return text


def _grammar(decoding: Decoding) -> str | None:
    """Return the grammar that holds an answer; None for a schema that cannot be written as one."""
    if decoding.choices:
        literals = (json.dumps(choice, ensure_ascii=False) for choice in decoding.choices)
        return f"root ::= {' | '.join(literals)}"
    return compact_grammar(json.loads(str(decoding.json_schema)))


def _batches(rows: Sequence[Sequence[int]], n_answer_tokens: int) -> Iterator[list[int]]:
    """Yield the places of rows of about one length, padded to at most `_BATCH_TOKENS` tokens."""
    batch: list[int] = []
    for at in sorted(range(len(rows)), key=lambda at: len(rows[at])):
        if batch and (len(batch) + 1) * (len(rows[at]) + n_answer_tokens) > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch
