"""Let the index of labels by annotator tell the prompts that asked for them too."""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Apply."""
    op.drop_index("ix_weak_labels_by_kind", "weak_labels")
    key = ["project_id", "question_version", "annotator_kind"]
    columns = [*key, "task_id", "abstention", "annotator", "question", "prompt_version"]
    op.create_index("ix_weak_labels_by_kind", "weak_labels", columns)
