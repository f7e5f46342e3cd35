"""The LLM in the benchmark's process answers as its weights say, alone or in a batch."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from backend.domain.ports import Conversation, Decoding
from benchmarks.local_llm import LocalLanguageModel

WORDS = ["<end>", "<unknown>", "user", "assistant", "system", "good", "bad", "film", "a", "was"]
TEMPLATE = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}assistant"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of random weights that knows ten words."""
    folder = tmp_path_factory.mktemp("models") / "Tiny-LLM"
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unknown>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        eos_token_id=0,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return LocalLanguageModel(folder)


def test_named_tokens_have_the_probabilities_of_the_whole_vocabulary(folder, model):
    ids = model.tokenize("good bad")
    (answer,) = model.complete(["a film was"], Decoding(token_ids=ids))
    weights = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    with torch.no_grad():
        logits = weights(torch.tensor([model.tokenize("a film was")])).logits[0, -1].float()
    expected = torch.log_softmax(logits, dim=-1)
    assert answer.logprobs == pytest.approx({i: float(expected[i]) for i in ids}, abs=1e-2)
    assert (answer.n_tokens_in, answer.n_tokens_out) == (3, 1)


def test_a_prompt_has_the_same_answer_alone_and_among_others(model):
    decoding = Decoding(token_ids=model.tokenize("good bad"))
    prompts = ["a film was bad film was a bad film", "a film", "was a good film was"]
    together = model.complete(prompts, decoding)
    for prompt, found in zip(prompts, together, strict=True):
        (alone,) = model.complete([prompt], decoding)
        assert found.logprobs == pytest.approx(alone.logprobs, abs=3e-2)


def test_a_conversation_is_put_into_the_chat_template(model):
    ids = model.tokenize("good")
    chat = Conversation("a film", ("bad", "good", "was"))
    (found,) = model.complete([chat], Decoding(token_ids=ids))
    text = "system a film user bad assistant good user was assistant"
    (expected,) = model.complete([text], Decoding(token_ids=ids))
    assert found.logprobs == expected.logprobs


def test_a_written_answer_ends_at_its_end_a_stop_or_its_limit(model):
    (free,) = model.complete(["bad was a"], Decoding(max_tokens=6))
    assert (free.text, free.finish_reason, free.n_tokens_out) == ("film good", "stop", 3)
    assert free.mean_logprob < 0
    (stopped,) = model.complete(["bad was a"], Decoding(max_tokens=6, stop=("good",)))
    assert (stopped.text, stopped.finish_reason) == ("film ", "stop")
    (limited,) = model.complete(["bad was a"], Decoding(max_tokens=1))
    assert (limited.text, limited.finish_reason) == ("film", "length")


def test_answers_that_end_early_leave_the_others_as_they_are(model):
    prompts = ["a film was bad", "good", "film film film"]
    decoding = Decoding(max_tokens=8, stop=("bad",))
    together = model.complete(prompts, decoding)
    alone = [
        model.complete([prompt], Decoding(max_tokens=8, stop=("bad",)))[0] for prompt in prompts
    ]
    assert [one.text for one in together] == [one.text for one in alone]


def test_it_describes_itself_and_cuts_texts_by_tokens(model):
    info = model.describe()
    assert (info.name, info.reads_token_ids, info.has_chat) == ("tiny-llm", True, True)
    assert model.truncate("a film was good", 2) == "a film"
    assert model.truncate("a film", 5) == "a film"
    assert model.truncate("a film", 0) == ""
