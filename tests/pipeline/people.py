"""What people do in a project of the house, and what they see of it."""

from __future__ import annotations

from collections import Counter

N_TEXTS = 30


def choice(value: str) -> dict[str, object]:
    return {
        "from_name": "sentiment",
        "to_name": "text",
        "type": "choices",
        "value": {"choices": [value]},
    }


def people_answer(house, project_id, n: int, *, skip: int = 0) -> list[int]:
    remote = house.remote(project_id)
    task_ids = sorted(remote.tasks)[skip : skip + n]
    for task_id in task_ids:
        is_good = "good" in remote.tasks[task_id]["text"]
        house.platform.annotate(task_id, [choice("Positive" if is_good else "Negative")])
    house.projects.forget_full_sync(project_id)
    return task_ids


def people_contradict(house, project_id, n: int) -> None:
    """Have people answer the opposite of what the annotators say."""
    for task_id, data in sorted(house.remote(project_id).tasks.items())[:n]:
        is_good = "good" in data["text"]
        house.platform.annotate(task_id, [choice("Negative" if is_good else "Positive")])


def outcome(house, project_id) -> dict[str, object]:
    """What a user can see of the project, without names and times."""
    project = house.projects.get(project_id)
    remote = house.remote(project_id)
    rows = [row for row in remote.predictions.values()]
    assert {row.model_version for row in rows} <= {project.model_version}
    assert remote.info.model_version == project.model_version
    assert max(Counter(row.task_id for row in rows).values()) == 1
    last = house.rounds.history(project_id)[-1]
    return {
        "predictions": {row.task_id: (row.result, row.score) for row in rows},
        "places": house.releases.places(project),
        "votes": {
            (label.example_id, label.question, label.annotator): (label.probabilities, label.spans)
            for label in house.labels.weak_labels(project)
        },
        "round": (last.number, last.state, last.metrics),
        "n_human": len(house.tasks.human_labels(project_id)),
    }
