"""Projects of unusual form: one class, 150 classes, and a label config that was changed."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from backend.domain.labels import WeakLabel
from backend.domain.projects import Prediction, QueuePlace, QueueState, Task
from backend.label_model.label_issues import IssueKind, LabelIssue
from backend.pipeline.issues import save_issues
from backend.pipeline.status import LABELS, QUEUE
from backend.web.page.site import PARTS
from tests.web.page.test_accept import REPORT
from tests.web.page.test_quality import ONE_CLASS, figures_of, quality, released
from tests.web.page.test_site import html
from tests.web.test_ml_routes import setup_body

N_TASKS = 12
MANY = (
    '<View><Text name="text" value="$text"/><Choices name="sentiment" toName="text">'
    + "".join(f'<Choice value="class {n}"/>' for n in range(150))
    + "</Choices></View>"
)
OTHER = (
    '<View><Text name="text" value="$text"/><Choices name="topic" toName="text">'
    '<Choice value="Food"/><Choice value="Room"/></Choices></View>'
)


@pytest.fixture
def project(client, services):
    """A project with labels, an order, a round, probable errors and a certificate."""
    client.post("/setup", json=setup_body())
    (found,) = services.stores.projects.all()
    return furnish(services, found, labels=("Positive", "Negative"))


def furnish(services, project, *, labels):
    stores, ids = services.stores, range(1, N_TASKS + 1)
    stores.tasks.save(project.id, [Task(n, {"text": f"a good text {n}"}) for n in ids])
    shares = (1 / len(labels),) * len(labels)
    weak = [WeakLabel(n, "sentiment", "llm", probabilities=shares) for n in ids]
    predictions = [Prediction(n, project.model_version, (), 0.5) for n in ids]
    stores.labels.save(project, weak, predictions)
    counts = {"by_label": dict.fromkeys(labels, 7), "n_none": 0, "by_source": {"llm": N_TASKS}}
    places = [QueuePlace(n, n, f"why {n}") for n in ids]
    draft = stores.releases.draft(project, predictions, places, {LABELS: {"sentiment": counts}})
    stores.releases.promote(draft)
    project = stores.projects.get(project.id)
    version = project.question_version
    queue = QueueState(version, "activellm", N_TASKS, 0, (), {"n_head": 3})
    stores.state.put(project.id, QUEUE, asdict(queue))
    stores.state.put(project.id, "certificate", {"question_version": version, **REPORT})
    wrong = (labels[0], labels[-1], False, 0.9, {"llm": (labels[-1], 0.8)})
    save_issues(stores, project, [LabelIssue(1, "sentiment", IssueKind.WRONG, *wrong)])
    released(services, project, quality=quality((labels[0], labels[-1])))
    return project


@pytest.mark.parametrize("config", [ONE_CLASS, MANY], ids=["one", "150"])
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_every_part_shows_a_project_of_one_class_and_of_150(
    client, services, project, config, part
):
    changed, _ = services.stores.projects.save(project.id, label_config=config)
    labels = ("Only",) if config is ONE_CLASS else tuple(f"class {n}" for n in range(150))
    furnish(services, changed, labels=labels)
    text = html(client, f"/projects/1/{part.name}")
    assert f"<h1>{part.title}</h1>" in text
    assert ("data-issue=" in text) == (part.name == "issues" and config is MANY)


def test_of_150_classes_the_overview_draws_the_most_frequent_and_tables_all(
    client, services, project
):
    changed, _ = services.stores.projects.save(project.id, label_config=MANY)
    furnish(services, changed, labels=tuple(f"class {n}" for n in range(150)))
    text = html(client, "/projects/1/overview")
    assert "the 30 most frequent of 150" in text
    bars = next(each for each in figures_of(text) if each["data"][0].get("type") == "bar")
    assert len(bars["data"][0]["x"]) == 30
    assert text.count('<th scope="row">class ') == 150


@pytest.mark.parametrize(
    ("part", "before", "after"),
    [
        ("overview", "85.3%", "Not enough answers yet"),
        ("quality", "75.0%", "Nothing is measured yet"),
        ("issues", 'data-issue="1-', "No probable errors are known"),
        ("queue", "why 1", "The queue has no order yet"),
        ("rounds", "Round 1</h3>", "No round has been made yet"),
        ("accept", "1,234", "Nothing is known yet"),
    ],
)
def test_what_was_found_about_an_earlier_question_is_shown_no_more(
    client, services, project, part, before, after
):
    assert before in html(client, f"/projects/1/{part}")
    services.stores.projects.save(project.id, label_config=OTHER)
    text = html(client, f"/projects/1/{part}")
    assert before not in text
    assert after in text
    assert part not in ("overview", "quality") or "topic" in text
