"""Answer some of the demo's tasks as two people would, so that every figure has something to show.

Their names say that they are simulated; they answer with the sample's gold labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.domain.projects import Prediction, Project
from backend.labelstudio.admin import LabelStudioAdmin
from backend.services import Services

_PEOPLE = {
    "simulated-one@example.com": "Simulated annotator one",
    "simulated-two@example.com": "Simulated annotator two",
}
N_ANSWERED = 45
_N_SHARED = 10  # answered by both, so that their agreement shows


def simulate_people(
    admin: LabelStudioAdmin, services: Services, project: Project, gold: Mapping[int, str]
) -> int:
    """Answer tasks with their gold labels, the random holdout first; return how many answers.

    Nothing is answered where somebody has answered before, or where the label config asks for more
    than one choice of one question.

    Args:
        admin: Label Studio.
        services: the demo's backend.
        project: the sample's project.
        gold: label by task id.
    """
    stores, questions = services.stores, services.config.read_schema(project.label_config).questions
    is_one_choice = len(questions) == 1 and questions[0].kind.is_exclusive
    if not is_one_choice or stores.labels.progress(project).n_human_labels:
        return 0
    names = {label.name for label in questions[0].labels}
    places = sorted(stores.releases.places(project), key=lambda place: not place.is_holdout)
    known = [place.task_id for place in places if gold.get(place.task_id) in names]
    chosen = known[:N_ANSWERED]
    predictions = stores.publication.predictions(project, stores.tasks.get(project.id, chosen))
    first, second = (admin.ensure_user(email, name) for email, name in _PEOPLE.items())
    answers = [(task_id, first) for task_id in chosen]
    answers += [(task_id, second) for task_id in chosen[:_N_SHARED]]
    n_answers = 0
    for task_id, person in answers:
        if task_id in predictions:
            admin.annotate_as(person, task_id, _answer(predictions[task_id], gold[task_id]))
            n_answers += 1
    return n_answers


def _answer(prediction: Prediction, label: str) -> Sequence[dict[str, Any]]:
    """Return the region of a prediction's choice with another label."""
    kept = ("from_name", "to_name", "type")
    return [
        {name: region[name] for name in kept} | {"value": {"choices": [label]}}
        for region in prediction.result
        if region["type"] == "choices"
    ]
