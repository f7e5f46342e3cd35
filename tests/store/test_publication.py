"""The way of predictions into Label Studio: offered or sent once, looked up where in doubt."""

from __future__ import annotations

import pytest

from backend.domain.chunks import Chunk
from backend.domain.projects import Task
from tests.store.test_labels import prediction, weak


@pytest.fixture
def three(tasks, project):
    listed = [Task(n, {"text": f"text {n}"}) for n in (1, 2, 3)]
    tasks.save(project.id, listed)
    return listed


def test_a_prediction_is_not_returned_for_another_text(labels, project, three, publication):
    labels.save(project, [weak(1)], [prediction(project, 1)])
    assert publication.predictions(project, [Task(1, {"text": "edited since"})]) == {}


def test_an_offered_prediction_is_looked_up_before_it_is_sent(labels, project, three, publication):
    labels.save(project, [weak(1), weak(2)], [prediction(project, 1), prediction(project, 2)])
    publication.predictions(project, three[:1])
    waiting, offered = publication.take_unpublished(project, 9, patience_s=0)
    assert [p.task_id for p in waiting] == [1, 2]
    assert offered == {1}
    assert publication.take_unpublished(project, 9, patience_s=0)[1] == {1, 2}


def test_a_prediction_is_offered_once(labels, project, three, publication):
    labels.save(project, [weak(1), weak(2)], [prediction(project, 1), prediction(project, 2)])
    assert publication.offer(project, [1]) == {1}
    assert publication.offer(project, [1]) == set()
    publication.take_unpublished(project, 9, patience_s=0)
    assert publication.offer(project, [1, 2]) == set()


def test_a_later_answer_to_the_same_question_does_not_replace_the_first(
    labels, project, three, publication
):
    labels.save(project, [weak(1)], [prediction(project, 1)])
    publication.offer(project, [1])
    labels.save(project, [weak(1, probabilities=(0.2, 0.8))], [prediction(project, 1)])
    assert publication.take_unpublished(project, 9, patience_s=0)[1] == {1}


def test_published_predictions_are_not_sent_again_until_they_are_gone(
    labels, project, three, publication
):
    labels.save(project, [weak(1)], [prediction(project, 1)])
    publication.note_published(project, [1])
    assert publication.take_unpublished(project, 9, patience_s=0) == ([], set())
    assert publication.publication(project, [1, 2]) == {1: True}
    publication.note_unpublished(project, [1])
    assert publication.has_published(project) is False
    assert [p.task_id for p in publication.take_unpublished(project, 9, patience_s=0)[0]] == [1]


def test_a_prediction_offered_just_now_is_not_imported_yet(labels, project, three, publication):
    labels.save(project, [weak(1), weak(2)], [prediction(project, 1), prediction(project, 2)])
    publication.offer(project, [1])
    taken, doubtful = publication.take_unpublished(project, 9, patience_s=30)
    assert [p.task_id for p in taken] == [2]
    assert doubtful == set()
    assert publication.take_unpublished(project, 9, patience_s=30)[1] == {2}


def test_chunks_that_are_taken_side_by_side_have_none_in_common(
    labels, project, three, publication
):
    labels.save(project, [weak(n) for n in (1, 2, 3)], [prediction(project, n) for n in (1, 2, 3)])
    assert publication.unpublished_ids(project, 9, after=1, patience_s=0) == [2, 3]
    taken = [
        publication.take_unpublished(project, 9, patience_s=0, chunk=chunk)
        for chunk in (Chunk(0, 2), Chunk(2, 3))
    ]
    assert [[p.task_id for p in found] for found, _ in taken] == [[1, 2], [3]]
    assert all(doubtful == set() for _, doubtful in taken)
