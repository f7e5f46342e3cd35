"""The durable workflow that gets every unlabelled task its prediction."""

from __future__ import annotations

from backend.core.ports import StepRunner
from backend.core.types import ProjectId
from backend.workflow.annotation import PreAnnotator
from backend.workflow.publishing import Publisher
from backend.workflow.synchronisation import Synchroniser

PRELABEL = "prelabel"


def prelabel(
    project_id: ProjectId,
    steps: StepRunner,
    parts: tuple[Synchroniser, PreAnnotator, Publisher],
) -> None:
    """Sync, then label and publish chunk by chunk until nothing more can be done now.

    Each step is safe to repeat and finds its own work in the database, so a kill costs at most
    the chunk under way. What could not be done (a server is down) is left to the next run.
    """
    synchroniser, annotator, publisher = parts
    steps.run("sync", synchroniser.sync, project_id)
    steps.run("reopen", annotator.reopen, project_id)
    is_labelled = is_published = False
    while not (is_labelled and is_published):
        labelled = steps.run("annotate", annotator.annotate_chunk, project_id)
        published = steps.run("publish", publisher.publish_chunk, project_id)
        steps.run("serve", publisher.serve, project_id)
        is_labelled = bool(labelled["is_done"])
        is_published = bool(published["is_done"])
