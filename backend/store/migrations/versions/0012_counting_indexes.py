"""Let counts of a large project read indexes alone, and the last answers be found at once."""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Apply."""
    op.create_index(
        op.f("ix_tasks_project_id_deleted_at_id"), "tasks", ["project_id", "deleted_at", "id"]
    )
    of_kind = ["project_id", "question_version", "annotator_kind"]
    by_kind, origin = ["task_id", "abstention"], ["annotator", "question", "prompt_version"]
    op.create_index("ix_weak_labels_by_kind", "weak_labels", [*of_kind, *by_kind])
    columns = [*of_kind, "abstention", *origin, "task_id"]
    op.create_index("ix_weak_labels_by_origin", "weak_labels", columns)
    answers = ["project_id", "task_id", "deleted_at", "was_cancelled", "is_copied"]
    op.create_index("ix_human_labels_by_task", "human_labels", answers)
    op.drop_index(op.f("ix_human_labels_project_id_task_id"), "human_labels")
    name = op.f("ix_human_labels_project_id_updated_at")
    op.create_index(name, "human_labels", ["project_id", "updated_at"])
