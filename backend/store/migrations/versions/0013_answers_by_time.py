"""Let counts of people's answers read an index alone, and the last answers be found at once."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Apply."""
    columns = ["project_id", "task_id", "deleted_at", "was_cancelled", "is_copied"]
    op.create_index("ix_human_labels_by_task", "human_labels", columns)
    op.drop_index(op.f("ix_human_labels_project_id_task_id"), "human_labels")
    name = op.f("ix_human_labels_project_id_updated_at")
    op.create_index(name, "human_labels", ["project_id", "updated_at"])
