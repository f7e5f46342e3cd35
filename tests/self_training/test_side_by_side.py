"""A training by several processes: what goes in and out of them, and when it is given up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.domain.questions import QuestionKind
from backend.domain.student import (
    PLAIN,
    PoolTexts,
    StudentOutput,
    StudentPrediction,
    TrainingHooks,
    TrainingProgress,
    TrainingReport,
    TrainingSet,
)
from backend.errors import TrainingCancelled, TrainingDiverged, TrainingError
from backend.launcher.child import ChildProcess, Command
from backend.self_training import peers
from backend.self_training.peer import KnownVectors
from backend.self_training.self_trainer import SelfTrainer
from backend.self_training.side_by_side import (
    Order,
    SideBySide,
    own_up,
    read_order,
    read_output,
    tell,
    write_order,
    write_output,
)
from tests.self_training.conftest import reviews, training_set
from tests.self_training.test_self_trainer import DEFAULT, RECIPES, check, is_right_on_unseen_texts

ROOT = Path(__file__).parents[2]
PROGRESS = TrainingProgress("final", 1, 3, 2, 10, 0.5)


def start(argv, log_file):
    return ChildProcess(Command("training", argv, ROOT), log_file=log_file)


class Actor:
    """A program that does one thing a look, and ends when there is nothing left to do."""

    def __init__(self, folder, acts, *, code=0):
        self._folder, self._acts, self._code = folder, list(acts), code
        self.is_stopped = False

    def exit_code(self):
        if not self._acts:
            return self._code
        self._acts.pop(0)(self._folder)
        return None

    def stop(self):
        self.is_stopped = True

    def log_tail(self):
        return "Its last lines: out of memory"


class Stage:
    """Trains by an actor instead of by processes."""

    def __init__(self, *acts, code=0, fewest_texts=0):
        self.alone = SelfTrainer(recipe=PLAIN)
        self._acts, self._code = acts, code
        self.model = SideBySide(
            self.alone,
            lambda data, seed, hooks: Order(data, PLAIN, "", seed),
            self.start,
            n_processes=2,
            fewest_texts=fewest_texts,
        )
        self.actor = None

    def start(self, argv, log_file):
        self.actor = Actor(log_file.parent, self._acts, code=self._code)
        return self.actor


def test_an_order_is_read_as_it_was_written(tmp_path):
    pool = PoolTexts((7, 9), ("good film", "bad film"), ("a", "b"))
    data = TrainingSet(
        pool,
        ("x", "y", "z"),
        np.eye(3)[[0, 2]],
        np.array([True, False]),
        np.array([False, True]),
        QuestionKind.RATING,
        ("fine film", None),
    )
    texts = ("good film", "bad film", "a", "b")
    vectors = {text: np.full(4, at, dtype=np.float32) for at, text in enumerate(texts)}
    write_order(Order(data, DEFAULT, "base", 3, tmp_path, True, vectors), tmp_path)
    read = read_order(tmp_path)
    assert (read.recipe, read.base, read.seed) == (DEFAULT, "base", 3)
    assert (read.checkpoints, read.is_on_cpu) == (tmp_path, True)
    assert (read.data.pool, read.data.labels, read.data.views) == (pool, data.labels, data.views)
    assert read.data.kind is QuestionKind.RATING
    for name in ("targets", "has_label", "is_human"):
        assert (getattr(read.data, name) == getattr(data, name)).all()
    assert KnownVectors(read.vectors).embed(texts)[:, 0].tolist() == [0, 1, 2, 3]


def test_an_output_is_read_as_it_was_written(tmp_path):
    report = TrainingReport("default", {"final": 2.0}, {"n_held_out": 5.0}, ("a note",))
    prediction = StudentPrediction(np.full((2, 2), 0.5), np.ones((2, 3), dtype=np.float32))
    half = np.full((2, 2), 0.5)
    output = StudentOutput(prediction, half, np.array([0.1, 0.9]), half, np.array([1]), report)
    write_output(output, tmp_path)
    read = read_output(tmp_path)
    assert read.report == report
    assert read.label_quality_score.tolist() == [0.1, 0.9]
    assert read.label_issues.tolist() == [1]
    assert read.prediction.embeddings.shape == (2, 3)


def test_progress_is_passed_on_until_a_process_owns_up():
    heard = []
    stage = Stage(
        lambda folder: tell(PROGRESS, folder),
        lambda folder: own_up(TrainingDiverged("the loss is nan"), folder),
        code=1,
    )
    with pytest.raises(TrainingDiverged, match="the loss is nan"):
        stage.model.fit(training_set(*reviews(20)), hooks=TrainingHooks(on_progress=heard.append))
    assert heard == [PROGRESS]
    assert stage.actor.is_stopped


def test_a_cancelled_training_ends_its_processes():
    stage = Stage(*[lambda folder: None] * 99)
    with pytest.raises(TrainingCancelled):
        stage.model.fit(training_set(*reviews(20)), hooks=TrainingHooks(should_stop=lambda: True))
    assert stage.actor.is_stopped


def test_processes_that_end_without_a_word_are_an_error_with_their_last_lines():
    with pytest.raises(TrainingError, match="ended with 9.*out of memory"):
        Stage(code=9).model.fit(training_set(*reviews(20)))


def test_few_texts_are_left_to_one_process(tiny_base):
    stage = Stage(fewest_texts=41)
    stage.alone._base, stage.alone._recipe = tiny_base, RECIPES["plain"]
    check(stage.model.fit(training_set(*reviews(40)))[1], 40, 2)
    assert stage.actor is None


def test_a_process_alone_has_everything():
    assert (peers.n_processes(), peers.number(), peers.device()) == (1, 0, None)
    assert peers.share_of_batch(np.arange(3)).tolist() == [0, 1, 2]
    assert peers.whole(np.arange(3)).tolist() == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "paper"])
def test_two_processes_learn_what_one_does(tiny_base, tmp_path, name):
    texts, labels = reviews(200)
    data = training_set(texts, labels)
    recipe = replace(RECIPES[name], n_epochs=12)
    vectors = {text: np.eye(8, dtype=np.float32)[len(text) % 8] for text in texts}

    def order(data, seed, hooks):
        return Order(data, recipe, tiny_base, seed, hooks.checkpoints, True, vectors)

    alone = SelfTrainer(tiny_base, recipe=recipe, encoder=KnownVectors(vectors))
    heard = []
    hooks = TrainingHooks(on_progress=heard.append, checkpoints=tmp_path)
    model, output = SideBySide(alone, order, start, n_processes=2).fit(data, hooks=hooks)
    check(output, 200, 2)
    assert is_right_on_unseen_texts(model)
    assert heard
    read_again = model.predict(data.pool).probabilities
    np.testing.assert_allclose(read_again, output.prediction.probabilities, atol=1e-3)
    judged_alone = alone.fit(data)[1].label_quality_score
    assert (np.abs(output.label_quality_score - judged_alone) < 0.2).mean() > 0.95
    if name == "default":
        resumed = SideBySide(alone, order, start, n_processes=2).fit(data, hooks=hooks)[1]
        np.testing.assert_allclose(resumed.posterior, output.posterior, atol=1e-6)


@pytest.mark.slow
def test_a_mistake_in_one_process_is_told_in_words(tiny_base, tmp_path):
    recipe = replace(RECIPES["plain"], learning_rate=1e30)

    def order(data, seed, hooks):
        return Order(data, recipe, tiny_base, seed, None, True)

    several = SideBySide(SelfTrainer(tiny_base, recipe=recipe), order, start, n_processes=2)
    with pytest.raises(TrainingDiverged, match="the loss is"):
        several.fit(training_set(*reviews(100)))
