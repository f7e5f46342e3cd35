"""Overview and Quality: what rounds measured, as the status has it, for each kind of question."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest

from backend.domain.holdout import holdout_seed, in_holdout
from backend.domain.labels import Answer, HumanLabel, Span
from backend.domain.projects import Event, ProjectId, Task
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TextField
from backend.domain.rounds import RoundState
from backend.label_model.crowd import Consensus, ConsensusLabel
from backend.label_model.label_tables import Posteriors, SpanTable
from backend.pipeline.pool import Guidelines, Pool
from backend.pipeline.rounds.quality import label_quality
from tests.web.page.test_site import BROWSER, HOSTILE, html
from tests.web.test_ml_routes import setup_body

PROJECT = ProjectId("1.1795215594")
ONE_CLASS = (
    '<View><Text name="text" value="$text"/><Choices name="sentiment" toName="text">'
    '<Choice value="Only"/></Choices></View>'
)


@pytest.fixture
def project(client, services):
    client.post("/setup", json=setup_body())
    return services.stores.projects.get(PROJECT)


def answer(task_id: int) -> HumanLabel:
    return HumanLabel(task_id, task_id, 7, (), False, False, datetime.now(UTC))


def estimate(value: float, n: int = 60) -> dict[str, object]:
    return {"value": value, "low": value - 0.1, "high": value + 0.05, "n": n, "method": "x"}


def quality(labels=("Positive", "Negative")) -> dict[str, object]:
    first, second = labels[:2]
    return {
        "n": 60,
        "reliability": [{**estimate(0.8), "confidence": 0.75}],
        "by_label": [
            {"label": label, "n_right": 20, "n_found": 25, "n_people": 30, "f1": 40 / 55}
            for label in labels
        ],
        "annotators": [
            {"between": ["llm", "fused"], "n": 90, "same": estimate(0.9), "kappa": {"value": 0.71}}
        ],
        "people": [
            {"person": 7, "n_answers": 60, "n_shared": 12, "agreement": 0.75, "accuracy": 0.93}
        ],
        "confusion": [[first, first, 30], [second, first, 12], [second, second, 18]],
    }


def released(services, project, **figures) -> None:
    made = services.stores.rounds.open(project, recipe="default", reason="asked for", n_human=60)
    accuracies = {"llm": estimate(0.72), "small-model": estimate(0.81), "fused": estimate(0.853)}
    metrics = {"questions": {"sentiment": {"accuracies": accuracies, "changed": [0.1], **figures}}}
    services.stores.rounds.finish(made, RoundState.RELEASED, metrics=metrics)


def figures_of(text: str) -> list[dict[str, object]]:
    found = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    return [json.loads(each) for each in found]


def test_too_few_answers_in_the_holdout_are_told_as_a_count(client, services, project):
    seed = holdout_seed(PROJECT)
    ids = [n for n in range(1, 400) if in_holdout(n, seed=seed)][:23]
    others = [n for n in range(1, 400) if not in_holdout(n, seed=seed)][:50]
    labels = tuple(answer(n) for n in (*ids, *others))
    services.stores.tasks.save(PROJECT, [Task(n, {"text": "good"}) for n in range(1, 400)])
    services.stores.tasks.apply(PROJECT, Event("ANNOTATIONS_CREATED", annotations=labels), None)
    assert services.reporter.project(project)["holdout"] == {"n_answers": 23, "n_needed": 40}
    assert "Not enough answers yet: 23 of 40" in html(client, "/projects/1/overview")
    assert "(23 of 40 answers)" in html(client, "/projects/1/quality")


def test_accuracies_are_those_of_the_status_with_a_curve_and_its_table(client, services, project):
    for _ in range(2):
        released(services, project, quality=quality())
    text = html(client, "/projects/1/overview")
    last = services.reporter.project(project)["rounds"][-1]["metrics"]["questions"]["sentiment"]
    for found in last["accuracies"].values():
        assert f"{found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%})" in text
    (curve,) = figures_of(text)
    named = {trace["name"]: trace["y"] for trace in curve["data"] if "name" in trace}
    assert named == {"served labels": [0.853] * 2, "student": [0.81] * 2, "LLM": [0.72] * 2}
    assert [trace.get("fill") for trace in curve["data"]][:3] == [None, "tonexty", None]
    assert "round 2</th>" in text
    assert services.reporter.project(project)["advice"]["sentiment"]["labels"] in text


def test_quality_has_each_figure_and_its_table(client, services, project):
    released(services, project, quality=quality())
    text = html(client, "/projects/1/quality")
    reliability, confusion = figures_of(text)
    assert reliability["data"][1]["x"] == [0.75]
    assert reliability["data"][1]["y"] == [0.8]
    assert confusion["data"][0]["z"] == [[18, 12], [0, 30]]
    cells = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", text)
    for row in (
        ["person 7", "60", "12", "75.0%", "93.0%"],
        ["LLM and served labels", "90", "90.0% (80.0% to 95.0%)", "0.71"],
        ["Negative", "Positive", "12"],
        ["Positive", "30", "25", "20", "0.73"],
    ):
        assert any(cells[at : at + len(row)] == row for at in range(len(cells)))


def test_many_labels_have_tables_in_place_of_a_matrix(client, services, project):
    labels = tuple(f"label {n}" for n in range(150))
    found = quality(labels) | {"confusion": [[one, labels[0], 1] for one in labels]}
    released(services, project, quality=found)
    text = html(client, "/projects/1/quality")
    assert len(figures_of(text)) == 1
    assert text.count('<th scope="row">label 149</th>') == 1


def test_names_in_figures_are_data_and_no_markup(client, services, project):
    released(services, project, quality=quality((HOSTILE, "</script><b>x</b>")))
    for part in ("overview", "quality"):
        text = html(client, f"/projects/1/{part}")
        assert "<script>alert" not in text
        assert "</script><b>" not in text
        assert figures_of(text)


@pytest.mark.parametrize("metrics", [{}, {"questions": {"sentiment": {"error": "no labels"}}}])
def test_a_round_that_measured_nothing_leaves_words(client, services, project, metrics):
    made = services.stores.rounds.open(project, recipe="default", reason="asked for", n_human=0)
    services.stores.rounds.finish(made, RoundState.FAILED, metrics=metrics)
    assert "Nothing is measured yet" in html(client, "/projects/1/quality")


@pytest.mark.parametrize("config", ["<View/>", "<View><nonsense", "", ONE_CLASS])
def test_a_label_config_that_asks_nothing_is_told_in_words(client, services, project, config):
    released(services, project, quality=quality())
    services.stores.projects.save(PROJECT, label_config=config)
    for part in ("overview", "quality"):
        assert client.get(f"/projects/1/{part}", headers=BROWSER).status_code == 200


def test_a_project_that_is_gone_says_so(client, services, project):
    services.stores.projects.disconnect(PROJECT, "deleted", "it is not in Label Studio any more")
    assert "it is not in Label Studio any more" in html(client, "/projects/1/overview")
    assert "it is not in Label Studio any more" in html(client, "/")


def question(kind: QuestionKind) -> Question:
    labels = (LabelDefinition("a", "a"), LabelDefinition("b", "b"))
    return Question("q", (TextField("text", "text"),), kind, labels)


def pool_with(answers: dict[int, Answer]) -> Pool:
    """Return a pool of four examples with these answers in the random holdout."""
    examples = [SimpleNamespace(id=n) for n in range(4)]
    labels = {n: ConsensusLabel(n, answer, 1.0, (), 1, False) for n, answer in answers.items()}
    return Pool(None, Guidelines(None, ""), [], examples, held_out={"q": Consensus(labels)})


def test_a_single_choice_is_compared_on_the_holdout_alone():
    asked = question(QuestionKind.SINGLE_CHOICE)
    pool = pool_with({n: Answer(labels=(label,)) for n, label in enumerate("abb")})
    own = Posteriors(np.arange(4), np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.5, 0.5]]))
    llm = Posteriors(np.arange(4), np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9], [np.nan] * 2]))
    found = label_quality(pool, asked, {"llm": llm, "fused": own}, np.array([0, 1]))
    assert found["n"] == 2
    assert found["confusion"] == [["a", "a", 1], ["b", "a", 1]]
    assert found["by_label"][0] == {
        **{"label": "a", "n_right": 1, "n_found": 2, "n_people": 1, "f1": 2 / 3}
    }
    (pair,) = found["annotators"]
    assert (pair["between"], pair["n"]) == (["llm", "fused"], 3)
    assert pair["same"]["value"] == pytest.approx(2 / 3)
    assert json.loads(json.dumps(found)) == found


def test_spans_are_compared_by_type_and_kind_of_error():
    asked = question(QuestionKind.SPANS)
    spans = {0: Span(0, 3, "a"), 1: Span(5, 9, "b")}
    pool = pool_with({n: Answer(spans=(span,)) for n, span in spans.items()})
    own = SpanTable(np.arange(4), ((Span(0, 3, "a"),), (Span(5, 8, "b"),), (), None))
    found = label_quality(pool, asked, {"fused": own}, np.array([0, 1]))
    assert found["span_errors"]["right"] == 1
    assert found["span_errors"]["wrong border"] == 1
    assert "confusion" not in found
    assert [row["f1"] for row in found["by_label"]] == [1.0, 0.0]
