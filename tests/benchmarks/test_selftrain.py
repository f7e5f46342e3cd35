"""The student's benchmark: how labels are made noisy, read and scored."""

from __future__ import annotations

import json
from dataclasses import replace
from zlib import crc32

import numpy as np
import pytest

from backend.domain.labels import Span
from backend.domain.student import PLAIN
from benchmarks.noisy_labels import add_noise, load, wrong_label_predictability
from benchmarks.noisy_spans import corrupt, holds_spans, load_spans
from benchmarks.selftrain import training_set
from benchmarks.selftrain_goals import goal_lines
from benchmarks.selftrain_page import write_selftrain_page
from benchmarks.selftrain_plots import draw_pictures
from benchmarks.selftrain_runs import SelfTrainRun, purity, recipe_named

WORDS = {"cold": ("snow", "ice", "frost"), "warm": ("sun", "fire", "beach")}


class WordEncoder:
    """Some words share one of 256 dimensions."""

    name = "words"

    def embed(self, texts):
        vectors = np.zeros((len(texts), 256))
        for row, text in enumerate(texts):
            vectors[row, [crc32(word.encode()) % 256 for word in text.split()]] = 1.0
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for number in range(240):
        label = ("cold", "warm")[number % 2]
        rows.append(
            {
                "split": "test" if number >= 200 else "train",
                "i": number * 2,
                "text": f"{rng.choice(WORDS[label])} {rng.choice(['a', 'b', 'c'])} {number}",
                "label": label,
                "llm": {"one": None if number == 4 else "warm"},
            }
        )
    path = tmp_path / "weather.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def read(path, **options):
    asked = {"labels": None, "noise": 0.0, "limit": None, "seed": 0} | options
    return load(path, encoder=WordEncoder(), **asked)


@pytest.mark.parametrize("kind", ["drawn", "hardest"])
def test_noise_has_the_rate_asked_for_and_more_of_it_in_the_last_class(file, kind):
    noisy = read(file, noise=0.3, noise_kind=kind)
    wrong = noisy.given.argmax(axis=1) != noisy.gold
    assert wrong.mean() == pytest.approx(0.3, abs=0.01)
    assert wrong[noisy.gold == 1].mean() == pytest.approx(0.45, abs=0.01)


def test_drawn_noise_is_less_regular_than_the_hardest_texts():
    scores = np.linspace(0.9, 0.1, 400)
    scores = np.column_stack([scores, 1 - scores])
    gold = np.zeros(400, dtype=np.int64)
    wrong = {
        kind: add_noise(scores, gold, 0.4, np.random.default_rng(0), kind=kind)[:, 1] == 1
        for kind in ("drawn", "hardest")
    }
    assert wrong["drawn"].sum() == wrong["hardest"].sum() == 80
    likelier = {kind: found[200:].mean() / found.mean() for kind, found in wrong.items()}
    assert 1.2 < likelier["drawn"] < likelier["hardest"]


def test_noise_of_an_unknown_kind_is_refused(file):
    with pytest.raises(ValueError, match="drawn, hardest"):
        read(file, noise=0.3, noise_kind="random")


def test_errors_that_follow_the_words_are_predictable(file):
    noisy = read(file, noise=0.3)
    regular = np.array(["snow" in text for text in noisy.pool.texts])
    wrong = replace(noisy, given=np.eye(2)[np.where(regular, 1 - noisy.gold, noisy.gold)])
    assert wrong_label_predictability(wrong, WordEncoder()) > 0.9
    right = replace(noisy, given=np.eye(2)[noisy.gold])
    assert wrong_label_predictability(right, WordEncoder()) is None


def test_a_label_that_is_none_of_the_names_is_an_abstention(file):
    noisy = read(file, labels="llm.one")
    assert np.flatnonzero(~noisy.has_label).tolist() == [4]
    assert (noisy.given.argmax(axis=1)[noisy.has_label] == noisy.labels.index("warm")).all()


def test_stored_posteriors_are_found_by_the_rows_number(file, tmp_path):
    cache = tmp_path / "cache.jsonl"
    rows = [{"i": 0, "probabilities": [0.9, 0.1]}, {"i": 2, "probabilities": None}]
    rows += [{"i": 2 * n, "probabilities": [0.2, 0.8]} for n in range(2, 40)]
    cache.write_text("\n".join(map(json.dumps, rows)))
    noisy = read(file, labels=f"llm:{cache}")
    assert len(noisy.pool) == 40
    assert noisy.has_label.tolist() == [True, False] + [True] * 38
    assert noisy.given[0, 0] > noisy.given[2, 0]


def test_similarity_compares_texts_with_the_labels_names(file):
    noisy = read(file, labels="similarity")
    assert noisy.has_label.all()
    np.testing.assert_allclose(noisy.given.sum(axis=1), 1)


def test_a_file_of_test_rows_alone_is_halved(file):
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("\n".join(json.dumps(row) for row in rows if row["split"] == "test"))
    noisy = read(file, noise=0.2)
    assert (len(noisy.pool), len(noisy.test)) == (20, 20)
    assert not set(noisy.pool.texts) & set(noisy.test.texts)


def test_purity_takes_the_cleanest_of_each_class():
    clean = np.array([0.9, 0.8, 0.1, 0.2])
    given = np.array([0, 0, 1, 1])
    is_wrong = np.array([False, True, False, True])
    assert purity(clean, given, is_wrong, 0.5) == 0.5
    assert purity(clean, given, is_wrong, 1.0) == 0.5


def test_gold_trains_on_every_gold_label_and_the_others_only_on_human_ones(file):
    noisy = read(file, noise=0.3)
    gold = training_set(noisy, n_human=0, is_gold=True, seed=0)
    assert (gold.hard_labels == noisy.gold).all()
    given = training_set(noisy, n_human=20, is_gold=False, seed=0)
    assert given.is_human.sum() == 20
    assert (given.hard_labels == noisy.gold)[given.is_human].all()
    assert (given.hard_labels != noisy.gold).any()


def test_recipes_are_named_with_their_changes(tmp_path):
    asked = SelfTrainRun(tmp_path, ("default",), n_epochs=4)
    changed = recipe_named("default@n_neighbours=0@ema_decay=none@soft_targets=no", asked)
    assert (changed.n_neighbors, changed.ema_decay, changed.soft_targets) == (0, None, False)
    assert recipe_named("default@unmix=no@n_rounds=1", asked).n_repeats == 1
    assert recipe_named("gold", asked).name == PLAIN.name
    assert recipe_named("paper", asked).n_epochs == 4


def test_the_page_holds_what_the_reports_say(tmp_path):
    folder = tmp_path / "selftrain"
    folder.mkdir()
    figures = {"test_accuracy_mean": 0.8, "noise_auroc": 0.75, "seconds": 3.0}
    notes = {
        f"{recipe}_test_accuracies": [value]
        for recipe, value in (("plain", 0.7), ("default", 0.8), ("gold", 0.9))
    }
    notes |= {"n_train": 5, "n_test": 5, "n_labels": 2, "n_abstained": 0}
    notes |= {"given_label_accuracy": 0.6, "default_purity": {"0.1": 1.0, "1.0": 0.6}}
    report = {
        "parameters": {"seeds": 1},
        "notes": notes,
        "results": {"default": figures},
        "machine": {"cores": 2},
        "commit": "abc",
    }
    (folder / "weather.json").write_text(json.dumps(report))
    page, picture = write_selftrain_page(tmp_path)
    assert (
        "| weather | 1 | 70.0% | 80.0% | 90.0% | 0.50 | +10.00 | 70.0% | 80.0% |"
        in page.read_text()
    )
    assert picture.stat().st_size > 1000


def report_of(plain, default, gold, **figures):
    notes = {
        "plain_test_accuracies": plain,
        "default_test_accuracies": default,
        "gold_test_accuracies": gold,
    }
    return {"notes": notes, "results": {"default": figures}}


def test_goals_are_met_or_missed_by_what_the_reports_say():
    freeal = report_of(
        [0.8], [0.81], [0.8], fused_label_accuracy_mean=0.93, noise_auroc=0.7, times_trainer=3.0
    )
    gap = report_of([0.6, 0.7], [0.68, 0.72], [0.7, 0.8])
    under = report_of([0.7], [0.69], [0.7])
    lines = "\n".join(goal_lines({"mr_freeal": freeal, "mr_llm": gap, "mrpc": under}))
    assert "accuracy of the aggregated labels, at least 0.928 | 0.930 | yes |" in lines
    assert "AUROC of label errors, at least 0.78 | 0.700 | **no** |" in lines
    assert "test accuracy not under plain | +1.00 points | yes |" in lines
    assert "0.50 [0.20, 0.80]; by the median of the seeds 0.50 | yes |" in lines
    assert "+5.00 points [+2.00, +8.00] | yes |" in lines
    assert "worst: mrpc -1.00 | **no** |" in lines
    assert "most: mr_freeal 3 | **no** |" in lines


def test_the_paper_s_setting_has_goals_of_its_own_and_other_parts_of_a_set_have_none():
    paper = report_of([0.9], [0.91], [], test_accuracy_mean=0.905, fused_label_accuracy_mean=0.924)
    paper["parameters"] = {"model": "all-mpnet-base-v2", "seeds": 2}
    ablation = report_of([0.9], [0.1], [0.9])
    lines = goal_lines({"mr_freeal.mpnet": paper, "mr_freeal.ablation": ablation})
    of_paper = [line for line in lines if line.startswith("| mr_freeal with all-mpnet-base-v2")]
    assert [line.split("| ")[-2:] for line in of_paper] == [
        ["0.9050 ", "yes |"],
        ["0.9240 ", "**no** |"],
    ]
    assert lines[4 + len(of_paper) :] == [""]


def test_a_training_that_learned_nothing_does_not_move_the_median():
    gap = report_of([0.7, 0.7, 0.1], [0.8, 0.8, 0.8], [0.9, 0.9, 0.9])
    lines = "\n".join(goal_lines({"mr_llm": gap}))
    assert "0.75 [0.50, 0.88]; by the median of the seeds 0.50 | yes |" in lines


def test_half_a_point_under_plain_is_not_more_than_half_a_point():
    lines = "\n".join(goal_lines({"mrpc": report_of([0.696, 0.69], [0.682, 0.694], [0.7, 0.7])}))
    assert "worst: mrpc -0.50 | yes |" in lines


def test_goals_without_reports_are_left_out():
    assert goal_lines({}) == []


def test_without_reports_there_is_no_page(tmp_path):
    assert write_selftrain_page(tmp_path) == []


@pytest.fixture
def tagged(tmp_path):
    rows = []
    for number in range(60):
        split = "test" if number >= 50 else "train"
        tokens = ["Ann", "lives", "in", "New", "Rome", f"since{number}"]
        tags = ["B-person", "O", "O", "B-place", "I-place", "O"]
        rows.append({"split": split, "i": number, "tokens": tokens, "tags": tags})
    path = tmp_path / "people.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_spans_are_dropped_and_mistyped_in_equal_shares(tagged):
    noisy = load_spans(tagged, noise=0.3, limit=None, n_test=None, seed=0)
    assert (len(noisy.texts), len(noisy.test_texts)) == (50, 10)
    changes = [
        (set(gold) - set(given), set(given) - set(gold))
        for gold, given in zip(noisy.gold, noisy.given, strict=True)
    ]
    assert sum(len(gone) for gone, _ in changes) == 30
    assert sum(len(new) for _, new in changes) == 15


def test_with_one_label_corrupted_spans_are_dropped():
    gold = ((Span(0, 1, "a"), Span(2, 3, "a")), (), (Span(0, 1, "a"), Span(4, 5, "a")))
    given = corrupt(gold, ["a"], rate=0.5, rng=np.random.default_rng(0))
    assert sum(map(len, given)) == 2
    assert all(set(found) <= set(right) for found, right in zip(given, gold, strict=True))


def test_files_of_other_rows_hold_no_spans(file, tagged):
    assert holds_spans(tagged)
    assert not holds_spans(file)
    with pytest.raises(ValueError, match="has no tags"):
        load_spans(file, noise=0.3, limit=None, n_test=None, seed=0)


def test_a_part_keeps_each_texts_label(file):
    noisy = read(file, noise=0.3)
    part = noisy.part(np.array([3, 7]))
    assert part.pool.texts == (noisy.pool.texts[3], noisy.pool.texts[7])
    assert (part.given == noisy.given[[3, 7]]).all()
    assert len(part.test) == len(noisy.test)


def test_learning_curves_are_drawn_where_they_were_measured(tmp_path):
    report = report_of([0.7], [0.8], [0.9])
    assert draw_pictures({"weather": report}, tmp_path) == []
    report["notes"]["default_curve"] = {"100": [0.5, 0.6], "200": [0.7, 0.8]}
    (picture,) = draw_pictures({"weather": report}, tmp_path)
    assert picture.name == "curves.png"
    assert picture.stat().st_size > 1000
