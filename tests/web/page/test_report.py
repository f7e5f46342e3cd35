"""A report is one file with the page's values: no script, no other file, no texts unless asked."""

from __future__ import annotations

import re

import pytest

from backend.domain.projects import Task
from backend.domain.rounds import RoundState
from backend.label_model.label_issues import IssueKind, LabelIssue
from backend.pipeline.issues import save_issues
from backend.web.page.report import report
from tests.web.page.test_site import HOSTILE
from tests.web.test_ml_routes import setup_body

SECRET = "a secret text"


@pytest.fixture
def project(client, services):
    client.post("/setup", json=setup_body())
    project = services.stores.projects.all()[0]
    services.stores.projects.save(project.id, label_config=project.label_config, title=HOSTILE)
    project = services.stores.projects.get(project.id)
    services.stores.tasks.save(project.id, [Task(n, {"text": SECRET}) for n in (1, 2, 3)])
    says = {"fake": ("Negative", 0.8)}
    issues = [
        LabelIssue(n, "sentiment", IssueKind.WRONG, "Positive", "Negative", n == 1, 0.9, says)
        for n in (1, 2)
    ]
    save_issues(services.stores, project, issues)
    return project


def test_a_report_holds_the_parts_and_nothing_from_elsewhere(services, project):
    made = services.stores.rounds.open(project, recipe="default", reason="asked for", n_human=3)
    accuracy = {"value": 0.8, "low": 0.65, "high": 0.9, "n": 40}
    figures = {"n_audited": 40, "accuracies": {"fused": accuracy}, "changed": [0.125]}
    metrics = {"questions": {"sentiment": figures}}
    services.stores.rounds.finish(made, RoundState.RELEASED, metrics=metrics)
    text = report(services, project, has_texts=False)
    assert re.findall(r'data-part="([^"]+)"', text) == [
        *("Overview", "Quality", "Rounds", "Label issues")
    ]
    assert "80.0% (65.0% to 90.0%)" in text
    assert "<script" not in text
    assert not re.search(r'(src|href|action)="', text)
    assert not re.search(r"url\(|@import", text)
    assert "default-src 'none'" in text
    assert "&lt;script&gt;" in text
    assert text.count("<!doctype html>") == text.count("</html>") == 1


def test_a_report_has_texts_only_where_they_are_asked_for(services, project):
    without, whole = (report(services, project, has_texts=has) for has in (False, True))
    assert SECRET not in without
    assert whole.count(SECRET) == 2
    cells = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", without)
    assert cells[cells.index("wrong") - 1 :][:4] == ["sentiment", "wrong", "2", "1"]
