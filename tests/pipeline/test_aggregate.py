"""Labels that a round decided about stay when the label model is fitted again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.pipeline.conftest import House
from tests.pipeline.people import people_answer


@pytest.fixture
def house(stores, tmp_path) -> House:
    return House(stores, folder=tmp_path, chunk=30)


def fused(house, project):
    return {
        label.example_id: label
        for label in house.labels.weak_labels(project)
        if label.annotator == "fused"
    }


@pytest.mark.parametrize(("decided", "is_kept"), [(("sentiment",), True), ((), False)])
def test_a_label_changes_by_a_new_fit_only_where_no_round_decided(house, decided, is_kept):
    project_id = house.labeled(30)
    project = house.projects.get(project_id)
    first, label = next(iter(fused(house, project).items()))
    turned = replace(label, probabilities=label.probabilities[::-1])
    house.labels.save(project, [turned], [])
    aggregated = house.aggregator.aggregate(project, decided=decided)
    expected = turned if is_kept else label
    assert fused(house, project)[first].probabilities == pytest.approx(expected.probabilities)
    (question,) = aggregated.pool.questions
    row = list(aggregated.pool.example_ids).index(first)
    assert tuple(aggregated.posteriors(question)[row]) == pytest.approx(expected.probabilities)


def test_people_change_it_nevertheless(house):
    project_id = house.labeled(30)
    project = house.projects.get(project_id)
    first, label = next(iter(fused(house, project).items()))
    house.labels.save(project, [replace(label, probabilities=label.probabilities[::-1])], [])
    assert people_answer(house, project_id, 1) == [first]
    house.prelabel(project_id)
    house.aggregator.aggregate(project, decided=("sentiment",))
    assert fused(house, project)[first].source == "human"
    assert max(fused(house, project)[first].probabilities) == 1.0
