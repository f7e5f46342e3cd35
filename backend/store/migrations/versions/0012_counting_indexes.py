"""Let counts of a large project read indexes alone: of its tasks, and of labels by annotator."""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Apply."""
    op.create_index(
        op.f("ix_tasks_project_id_deleted_at_id"), "tasks", ["project_id", "deleted_at", "id"]
    )
    key = ["project_id", "question_version", "annotator_kind"]
    columns = [*key, "task_id", "abstention", "annotator"]
    op.create_index("ix_weak_labels_by_kind", "weak_labels", columns)
