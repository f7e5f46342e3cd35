"""Write a project's final labels and the served student into a folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from backend.domain.labels import WeakLabel
from backend.domain.ports import ConfigReader
from backend.domain.projects import Project, Task
from backend.domain.questions import Question
from backend.domain.rounds import QUESTIONS
from backend.errors import ExportFailed
from backend.files import replacing_folder
from backend.label_model.crowd import ConsensusLabel
from backend.label_model.labels_matrix import AGGREGATED
from backend.pipeline.export_formats import (
    HUMAN,
    ExportRow,
    export_csv,
    export_jsonl,
    export_label_studio,
)
from backend.pipeline.issues import IssueReader
from backend.pipeline.pool import Guidelines, GuidelinesReader
from backend.pipeline.release import MODEL_FROM, learned_from
from backend.pipeline.rounds.context import artifacts
from backend.pipeline.rounds.model_card import MODEL_CARD, round_section
from backend.store import Stores

_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Exported:
    """Number of answers written, and the model's folder, None when no round has made one."""

    n_rows: int
    model: Path | None


@dataclass(frozen=True)
class Exporter:
    """Writes labels.jsonl, labels.csv, label_studio.json and model/."""

    guidelines: GuidelinesReader
    config: ConfigReader
    stores: Stores
    models: Path

    def export(self, project: Project, folder: Path) -> Exported:
        """Write human labels before models'; raises ExportFailed and UnsupportedLabelConfig."""
        guidelines = self.guidelines.read(project)
        rows = list(self._rows(project, guidelines))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ExportFailed(f"cannot make {folder}: {exc.strerror or exc}") from exc
        n_rows = export_jsonl(rows, folder / "labels.jsonl")
        keys = sorted({key for row in rows for key in row.data})
        export_csv(rows, folder / "labels.csv", data_keys=keys)
        version = project.model_version
        export_label_studio(
            rows,
            folder / "label_studio.json",
            lambda labels, task: self.config.write_prediction(
                guidelines.schema, labels, version, task
            ),
        )
        return Exported(n_rows, self._copy_models(project, guidelines, folder / "model"))

    def _rows(self, project: Project, guidelines: Guidelines) -> Iterator[ExportRow]:
        consensus = self.guidelines.consensus(project, guidelines)
        aggregated = {
            (label.example_id, label.question): label
            for label in self.stores.labels.weak_labels(project, annotator=AGGREGATED)
            if label.abstention is None
        }
        issues = IssueReader(self.stores, self.config).by_answer(project)
        for task in self.stores.tasks.get(project.id, self.stores.tasks.ids(project.id)):
            for question in guidelines.schema.questions:
                human = consensus[question.name].labels.get(task.id)
                label = aggregated.get((task.id, question.name))
                doubts = tuple(issues.get((task.id, question.name), ()))
                if human is not None:
                    yield replace(_human_row(task, question, human), issues=doubts)
                elif label is not None:
                    yield replace(_model_row(task, question, label), issues=doubts)

    def _copy_models(self, project: Project, guidelines: Guidelines, folder: Path) -> Path | None:
        """Copy the served students; of several questions, each into a folder of its own."""
        provenance = self.stores.releases.provenance(project.id, project.model_version)
        measured = provenance.get("metrics", {}).get(QUESTIONS, {})
        models: dict[str, tuple[Path, str]] = {}
        for question in guidelines.schema.learned:
            source = learned_from(self.stores, project, question)
            if MODEL_FROM in source:
                number, cycle = source[MODEL_FROM]
                files = artifacts(self.models / project.id / str(number), question)
                if files.model(cycle).exists():
                    section = round_section(measured.get(question.name, {}))
                    models[files.folder.name] = (files.model(cycle), section)
        if not models:
            return None
        try:
            with replacing_folder(folder) as fresh:
                for name, (model, section) in models.items():
                    target = fresh if len(guidelines.schema.learned) == 1 else fresh / name
                    shutil.copytree(model, target)
                    with (target / MODEL_CARD).open("a", encoding="utf-8") as card:
                        card.write(section)
        except OSError as exc:
            raise ExportFailed(f"cannot write {folder}: {exc.strerror or exc}") from exc
        return folder


def _human_row(task: Task, question: Question, human: ConsensusLabel) -> ExportRow:
    answer = human.answer
    return ExportRow(
        task.id,
        task.data,
        question,
        labels=answer.labels,
        spans=answer.spans if question.kind.has_spans else None,
        text=answer.text,
        source=HUMAN,
        probability=human.probability,
        probabilities=human.probabilities,
        annotators=(HUMAN,),
    )


def _model_row(task: Task, question: Question, label: WeakLabel) -> ExportRow:
    """Return the labels that a posterior gives, with the confidence of the least certain one."""
    values, p = [label.value for label in question.labels], label.probabilities
    given: tuple[str, ...] = ()
    confidence = label.confidence
    if p and question.kind.is_exclusive:
        best = max(range(len(values)), key=lambda at: p[at])
        given, confidence = (values[best],), p[best]
    elif p:
        given = tuple(v for v, share in zip(values, p, strict=True) if share >= _THRESHOLD)
        confidence = min(max(share, 1 - share) for share in p)
    return ExportRow(
        task.id,
        task.data,
        question,
        labels=given,
        spans=label.spans,
        text=label.text,
        source=AGGREGATED,
        probability=confidence,
        probabilities=p,
        annotators=tuple(sorted(label.annotator_posteriors)) or (label.source,),
    )
