"""The student through its port: every recipe, every edge, and which model is shipped."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from transformers import pipeline

from backend.domain.questions import QuestionKind
from backend.domain.student import (
    PLAIN,
    PoolTexts,
    Recipe,
    TrainingHooks,
    TrainingSet,
)
from backend.errors import InvalidRequest, SettingsError, TrainingCancelled, TrainingDiverged
from backend.self_training.label_quality import LabelQuality
from backend.self_training.self_trainer import SelfTrainer, compare_with_plain
from backend.self_training.training_context import TrainingContext
from tests.self_training.conftest import reviews, training_set

FAST = {"n_epochs": 2, "batch_size": 16, "learning_rate": 5e-3, "max_tokens": 32}
DEFAULT = Recipe(**FAST)
RECIPES = {
    "default": DEFAULT,
    "plain": replace(PLAIN, **FAST),
    "paper": replace(PLAIN, name="paper", **FAST),
}


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return RECIPES[request.param]


def check(output, n_texts, n_labels):
    assert output.prediction.probabilities.shape == (n_texts, n_labels)
    for values in (output.prediction.probabilities, output.posterior, output.cross_fitted):
        np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-5)
    assert np.isfinite(output.prediction.embeddings).all()
    assert ((output.label_quality_score >= 0) & (output.label_quality_score <= 1)).all()


@pytest.mark.parametrize("name", ["plain", "paper"])
def test_a_recipe_learns_what_the_labels_say(tiny_base, name):
    texts, labels = reviews(200)
    recipe = replace(RECIPES[name], n_epochs=12)
    model, output = SelfTrainer(tiny_base, recipe=recipe).fit(training_set(texts, labels))
    check(output, 200, 2)
    assert is_right_on_unseen_texts(model)


def is_right_on_unseen_texts(model) -> bool:
    texts, truth = reviews(100, seed=1)
    answers = model.predict(PoolTexts(tuple(range(100)), texts)).probabilities
    return (answers.argmax(axis=1) == truth).mean() > 0.9


@pytest.mark.slow
def test_the_default_recipe_learns_in_spite_of_wrong_labels_and_finds_them(tiny_base):
    texts, labels = reviews(300)
    given = labels.copy()
    given[:30] = 1 - given[:30]
    recipe = replace(DEFAULT, n_epochs=16)
    model, output = SelfTrainer(tiny_base, recipe=recipe).fit(training_set(texts, given))
    check(output, 300, 2)
    assert (output.label_issues[:30] < 30).mean() > 0.7
    assert (output.posterior.argmax(axis=1) == labels).mean() > 0.9
    assert is_right_on_unseen_texts(model)


@pytest.mark.slow
def test_a_wrong_human_label_is_suspected_but_kept(tiny_base):
    texts, labels = reviews(300)
    given = labels.copy()
    given[0] = 1 - given[0]
    is_human = np.arange(300) < 20
    data = replace(training_set(texts, given), is_human=is_human)
    _, output = SelfTrainer(tiny_base, recipe=replace(DEFAULT, n_epochs=12)).fit(data)
    assert output.label_issues[0] == 0
    assert output.posterior[0].argmax() == given[0]


def test_equal_seeds_give_equal_models(tiny_base, recipe):
    data = training_set(*reviews(60))
    first = SelfTrainer(tiny_base, recipe=recipe).fit(data, seed=3)[1]
    second = SelfTrainer(tiny_base, recipe=recipe).fit(data, seed=3)[1]
    np.testing.assert_array_equal(first.prediction.probabilities, second.prediction.probabilities)


def test_a_single_class_among_the_labels_is_learned(tiny_base, recipe):
    texts, _ = reviews(40)
    data = training_set(texts, np.zeros(40, dtype=int))
    check(SelfTrainer(tiny_base, recipe=recipe).fit(data)[1], 40, 2)


def test_a_label_space_of_one_label_is_always_that_label(tiny_base, recipe):
    texts, _ = reviews(20)
    data = training_set(texts, np.zeros(20, dtype=int), n_labels=1)
    check(SelfTrainer(tiny_base, recipe=recipe).fit(data)[1], 20, 1)


def test_fewer_texts_than_labels_are_enough(tiny_base, recipe):
    texts, _ = reviews(3)
    data = training_set(texts, np.array([0, 4, 7]), n_labels=8)
    check(SelfTrainer(tiny_base, recipe=recipe).fit(data)[1], 3, 8)


def test_equal_texts_with_different_labels_are_learned(tiny_base, recipe):
    data = training_set(("a good film",) * 30, np.arange(30) % 2)
    check(SelfTrainer(tiny_base, recipe=recipe).fit(data)[1], 30, 2)


def test_empty_and_huge_texts_are_read(tiny_base, recipe):
    texts, labels = reviews(30)
    texts = ("", "good " * 5000, *texts[2:])
    model, output = SelfTrainer(tiny_base, recipe=recipe).fit(training_set(texts, labels))
    check(output, 30, 2)
    assert model.predict(PoolTexts((), ())).probabilities.shape == (0, 2)


def test_abstained_texts_get_an_answer(tiny_base, recipe):
    texts, labels = reviews(60)
    data = training_set(texts, labels)
    data.has_label[::3] = False
    data.targets[::3] = np.nan
    _, output = SelfTrainer(tiny_base, recipe=recipe).fit(data)
    check(output, 60, 2)
    assert set(output.label_issues) == set(np.flatnonzero(data.has_label))


def test_nothing_but_abstentions_is_refused_with_the_counts():
    with pytest.raises(InvalidRequest, match="2 texts, 2 labels, 0 labelled"):
        TrainingSet(
            PoolTexts((1, 2), ("a", "b")),
            ("x", "y"),
            np.zeros((2, 2)),
            np.zeros(2, dtype=bool),
            np.zeros(2, dtype=bool),
        )


def test_a_loss_that_is_no_number_ends_the_training(tiny_base, recipe):
    data = training_set(*reviews(40))
    recipe = replace(recipe, learning_rate=1e30)
    with pytest.raises(TrainingDiverged, match="the loss is (nan|inf)"):
        SelfTrainer(tiny_base, recipe=recipe).fit(data)


def test_a_training_stops_between_two_batches(tiny_base, recipe):
    seen = []
    hooks = TrainingHooks(on_progress=seen.append, should_stop=lambda: len(seen) >= 2)
    with pytest.raises(TrainingCancelled):
        SelfTrainer(tiny_base, recipe=recipe).fit(training_set(*reviews(100)), hooks=hooks)
    assert len(seen) == 2
    assert (seen[1].epoch, seen[1].n_epochs) == (1, 2)


def test_a_killed_training_ends_where_an_unbroken_one_does(tiny_base, recipe, tmp_path):
    data = training_set(*reviews(120))
    unbroken = SelfTrainer(tiny_base, recipe=recipe).fit(data)[1]
    seen = []
    broken = TrainingHooks(seen.append, lambda: len(seen) >= 11, tmp_path)
    with pytest.raises(TrainingCancelled):
        SelfTrainer(tiny_base, recipe=recipe).fit(data, hooks=broken)
    n_before = len(seen)
    hooks = TrainingHooks(on_progress=seen.append, checkpoints=tmp_path)
    resumed = SelfTrainer(tiny_base, recipe=recipe).fit(data, hooks=hooks)[1]
    np.testing.assert_allclose(
        resumed.prediction.probabilities, unbroken.prediction.probabilities, atol=1e-6
    )
    assert (seen[n_before].stage, seen[n_before].epoch) != ("", 1) or n_before == 0


def test_a_saved_model_answers_the_same_here_and_in_a_plain_pipeline(tiny_base, folder):
    texts, labels = reviews(60)
    model, output = SelfTrainer(tiny_base, recipe=DEFAULT).fit(training_set(texts, labels))
    model.save(folder, card={"Data": "60 texts"})
    again = SelfTrainer(tiny_base).load(folder)
    ours = again.predict(PoolTexts((0, 1), texts[:2])).probabilities
    np.testing.assert_allclose(ours, output.prediction.probabilities[:2], atol=0.02)
    classify = pipeline("text-classification", model=str(folder), top_k=None)
    for row, answer in enumerate(classify(list(texts[:2]))):
        theirs = {item["label"]: item["score"] for item in answer}
        for index, label in enumerate(model.labels):
            assert theirs[label] == pytest.approx(ours[row, index], abs=0.02)
    assert "60 texts" in (folder / "README.md").read_text("utf-8")


def test_a_model_of_the_first_release_is_loaded(tiny_base, folder):
    model, output = SelfTrainer(tiny_base, recipe=DEFAULT).fit(training_set(*reviews(20)))
    model.save(folder)
    stored = {"labels": ["label 0", "label 1"], "kind": "single_choice", "max_tokens": 32}
    assert json.loads((folder / "freeal.json").read_text("utf-8")) == stored
    loaded = (
        SelfTrainer(tiny_base).load(folder).predict(PoolTexts(tuple(range(20)), reviews(20)[0]))
    )
    np.testing.assert_allclose(loaded.probabilities, output.prediction.probabilities, atol=1e-5)


def test_saving_replaces_the_folder_as_a_whole(tiny_base, folder):
    model, _ = SelfTrainer(tiny_base, recipe=DEFAULT).fit(training_set(*reviews(20)))
    folder.mkdir()
    (folder / "stale").write_text("old")
    model.save(folder)
    assert not (folder / "stale").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="no student of this project"):
        SelfTrainer().load(tmp_path)


def test_a_base_that_is_no_model_is_refused_with_the_setting(tmp_path):
    with pytest.raises(SettingsError, match="STUDENT_MODEL"):
        SelfTrainer(str(tmp_path)).fit(training_set(*reviews(4)))


@pytest.mark.parametrize("kind", [QuestionKind.RATING, QuestionKind.PAIRWISE])
def test_other_exclusive_questions_are_learned(tiny_base, kind, recipe):
    texts, labels = reviews(60)
    data = replace(training_set(texts, labels, n_labels=3), kind=kind)
    check(SelfTrainer(tiny_base, recipe=recipe).fit(data)[1], 60, 3)


@pytest.mark.slow
def test_several_labels_may_hold_at_once(tiny_base):
    texts, labels = reviews(120)
    data = replace(training_set(texts, labels, n_labels=3), kind=QuestionKind.MULTIPLE_CHOICE)
    data.targets[:, 2] = 1.0
    model, output = SelfTrainer(tiny_base, recipe=replace(DEFAULT, n_epochs=14)).fit(data)
    answers = output.prediction.probabilities
    assert (answers[:, 2] > 0.5).mean() > 0.9
    assert ((answers[:, :2] > 0.5) == (data.targets[:, :2] > 0.5)).mean() > 0.9


def test_pairs_of_texts_are_read_together(tiny_base, recipe):
    texts, labels = reviews(40)
    data = training_set(texts, labels)
    data = replace(data, pool=PoolTexts(data.pool.ids, data.pool.texts, texts[::-1]))
    check(SelfTrainer(tiny_base, recipe=recipe).fit(data)[1], 40, 2)


def test_views_teach_texts_without_a_label(tiny_base):
    texts, labels = reviews(60)
    views = tuple(" ".join(reversed(text.split())) for text in texts[:30]) + (None,) * 30
    data = replace(training_set(texts, labels), views=views)
    data.has_label[40:] = False
    recipe = replace(DEFAULT, consistency_weight=1.0)
    check(SelfTrainer(tiny_base, recipe=recipe).fit(data)[1], 60, 2)
    paper = replace(RECIPES["paper"], n_epochs=4)
    check(SelfTrainer(tiny_base, recipe=paper).fit(data)[1], 60, 2)


@pytest.mark.parametrize("name", ["plain", "default"])
def test_several_labels_that_hold_for_few_texts_are_learned(tiny_base, name):
    texts, labels = reviews(200)
    targets = np.zeros((200, 20))
    targets[np.arange(200), labels] = 1
    data = replace(
        training_set(texts, labels),
        labels=tuple(f"label {number}" for number in range(20)),
        targets=targets,
        kind=QuestionKind.MULTIPLE_CHOICE,
    )
    recipe = replace(RECIPES[name], n_epochs=3, batch_size=16, max_tokens=32)
    model, _ = SelfTrainer(tiny_base, recipe=recipe).fit(data)
    found = model.predict(data.pool).probabilities > 0.5
    is_right = (found == (targets > 0.5)).all(axis=1)
    assert is_right.mean() > 0.7 > np.bincount(labels).max() / 200


HELD_OUT = np.arange(0, 200, 10)


@pytest.fixture
def context(tiny_base: str) -> TrainingContext:
    recipe = Recipe(n_epochs=12, batch_size=16, learning_rate=5e-3, max_tokens=32)
    return TrainingContext(training_set(*reviews(200)), recipe, tiny_base, 0, TrainingHooks())


def quality_of(context: TrainingContext, fold_predictions: np.ndarray | None) -> LabelQuality:
    targets = context.data.targets
    return LabelQuality(targets, targets, np.ones(len(targets)), fold_predictions)


def test_a_model_no_worse_than_its_folds_is_shipped_without_a_plain_training(context):
    model = context.new_model()
    wrong = 1 - context.data.targets
    chosen, figures, notes = compare_with_plain(
        context, model, quality_of(context, wrong), HELD_OUT
    )
    assert chosen is model
    assert figures["held_out_agreement"] >= figures["held_out_agreement_folds"] == 0
    assert notes == () and "plain" not in context.seconds


def test_a_lead_of_one_text_is_no_reason_for_a_plain_training(context):
    model = context.new_model()
    ours = context.predict(model).probabilities
    kept = (ours[HELD_OUT].argmax(axis=1) == context.data.hard_labels[HELD_OUT]).nonzero()[0]
    assert 0 < len(kept) < len(HELD_OUT)
    wrong = next(row for row in range(len(HELD_OUT)) if row not in kept)
    folds = ours.copy()
    folds[HELD_OUT[wrong]] = folds[HELD_OUT[wrong]][::-1]
    chosen, figures, _ = compare_with_plain(context, model, quality_of(context, folds), HELD_OUT)
    assert chosen is model and "plain" not in context.seconds
    assert figures["held_out_agreement_folds"] > figures["held_out_agreement"]


@pytest.mark.parametrize("has_folds", [True, False])
def test_a_model_that_learned_nothing_gives_way_to_the_plain_one(context, has_folds):
    model = context.new_model()
    right = context.data.targets if has_folds else None
    chosen, figures, notes = compare_with_plain(
        context, model, quality_of(context, right), HELD_OUT
    )
    assert chosen is not model
    assert figures["held_out_agreement_plain"] > figures["held_out_agreement"]
    assert len(notes) == 1 and context.seconds["plain"] > 0


def test_people_decide_between_the_models_where_they_labelled_held_out_texts(context):
    is_human = np.zeros(200, dtype=bool)
    is_human[HELD_OUT[:5]] = True
    context.data = replace(context.data, is_human=is_human)
    right = quality_of(context, context.data.targets)
    _, figures, _ = compare_with_plain(context, context.new_model(), right, HELD_OUT)
    assert figures["n_held_out"] == 5
