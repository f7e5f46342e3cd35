"""Gather a project's final labels and its champion model, and write them into a folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from backend.domain.labels import WeakLabel
from backend.domain.ports import ConfigReader
from backend.domain.projects import Prediction, Project, Task
from backend.domain.questions import Question
from backend.errors import ExportFailed
from backend.files import replacing_folder
from backend.label_model.crowd import ConsensusLabel
from backend.pipeline.export_formats import (
    HUMAN,
    ExportRow,
    export_csv,
    export_jsonl,
    export_label_studio,
)
from backend.pipeline.guidelines import Guidelines, GuidelinesReader
from backend.pipeline.labels_matrix import FUSED
from backend.pipeline.release import MODEL_FROM
from backend.pipeline.rounds.artifacts import RoundArtifacts
from backend.pipeline.rounds.model_card import CARD, round_section
from backend.store import Stores

_LIKELY = 0.5


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: answers, and the model's folder, None when no round has made one."""

    n_rows: int
    model: Path | None


class Exporter:
    """Writes labels.jsonl, labels.csv, label_studio.json and model/."""

    def __init__(
        self,
        guidelines_reader: GuidelinesReader,
        config: ConfigReader,
        stores: Stores,
        models: Path,
    ) -> None:
        self._guidelines_reader = guidelines_reader
        self._config = config
        self._stores = stores
        self._models = models

    def export(self, project: Project, folder: Path) -> Exported:
        """Write everything; raises ExportFailed and UnsupportedLabelConfig.

        What people said stands before what models think.
        """
        guidelines = self._guidelines_reader.read(project)
        rows = list(self._rows(project, guidelines))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ExportFailed(f"cannot make {folder}: {exc.strerror or exc}") from exc
        n_rows = export_jsonl(rows, folder / "labels.jsonl")
        keys = sorted({key for row in rows for key in row.data})
        export_csv(rows, folder / "labels.csv", data_keys=keys)
        write = partial(self._write, project, guidelines)
        export_label_studio(rows, folder / "label_studio.json", write)
        return Exported(n_rows, self._copy_model(project, folder / "model"))

    def _rows(self, project: Project, guidelines: Guidelines) -> Iterator[ExportRow]:
        people = self._guidelines_reader.people(project, guidelines)
        labels_out = {
            (label.example_id, label.question): label
            for label in self._stores.labels.weak_labels(project)
            if label.annotator == FUSED and label.abstention is None
        }
        for task in self._stores.tasks.get(project.id, self._stores.tasks.ids(project.id)):
            for question in guidelines.schema.questions:
                said = people[question.name].labels.get(task.id)
                label_out = labels_out.get((task.id, question.name))
                if said is not None:
                    yield _human_row(task, question, said)
                elif label_out is not None:
                    yield _model_row(task, question, label_out)

    def _write(
        self, project: Project, guidelines: Guidelines, labels: Sequence[WeakLabel], task: Task
    ) -> Prediction | None:
        return self._config.write_prediction(guidelines.schema, labels, project.model_version, task)

    def _copy_model(self, project: Project, folder: Path) -> Path | None:
        made_from = self._stores.releases.provenance(project.id, project.model_version)
        if MODEL_FROM not in made_from:
            return None
        number, cycle = made_from[MODEL_FROM]
        source = RoundArtifacts(self._models / project.id / str(number)).model(int(cycle))
        if not source.exists():
            return None
        try:
            with replacing_folder(folder) as fresh:
                shutil.copytree(source, fresh)
                with (fresh / CARD).open("a", encoding="utf-8") as card:
                    card.write(round_section(made_from.get("metrics", {})))
        except OSError as exc:
            raise ExportFailed(f"cannot write {folder}: {exc.strerror or exc}") from exc
        return folder


def _human_row(task: Task, question: Question, said: ConsensusLabel) -> ExportRow:
    answer = said.answer
    return ExportRow(
        task.id,
        task.data,
        question,
        labels=answer.labels,
        spans=answer.spans if question.kind.has_spans else None,
        text=answer.text,
        source=HUMAN,
        probability=said.probability,
        annotators=(HUMAN,),
    )


def _model_row(task: Task, question: Question, label_out: WeakLabel) -> ExportRow:
    given, probability = _labels(question, label_out.probabilities)
    return ExportRow(
        task.id,
        task.data,
        question,
        labels=given,
        spans=label_out.spans,
        text=label_out.text,
        source=FUSED,
        probability=label_out.confidence if probability is None else probability,
        annotators=_heard(label_out.votes, label_out.prompt_version),
    )


def _labels(
    question: Question, probabilities: tuple[float, ...]
) -> tuple[tuple[str, ...], float | None]:
    """Return the labels that a posterior gives, and how sure the least sure of them is."""
    if not probabilities:
        return (), None
    values = [label.value for label in question.labels]
    if question.kind.is_exclusive:
        best = max(range(len(values)), key=lambda at: probabilities[at])
        return (values[best],), probabilities[best]
    given = tuple(v for v, p in zip(values, probabilities, strict=True) if p >= _LIKELY)
    return given, min(max(p, 1 - p) for p in probabilities)


def _heard(votes: Mapping[str, object], only: str) -> tuple[str, ...]:
    return tuple(sorted(votes)) or (only,)
