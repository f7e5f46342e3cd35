"""Several releases can answer one question: drafts, promotion, the queue of each."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Apply; until now every version asked its own question."""
    _add_versions("projects", "model_version")
    _add_versions("model_versions", "name")
    with op.batch_alter_table("model_versions") as batch:
        batch.add_column(
            sa.Column("state", sa.String(length=16), nullable=False, server_default="released")
        )
    with op.batch_alter_table("model_versions") as batch:
        batch.alter_column("state", server_default=None)
    op.drop_index("ix_weak_labels_project_id_model_version_created_at", "weak_labels")
    with op.batch_alter_table("weak_labels") as batch:
        batch.alter_column("model_version", new_column_name="question_version")
    op.create_index(
        "ix_weak_labels_project_id_question_version_created_at",
        "weak_labels",
        ["project_id", "question_version", "created_at"],
    )
    op.create_table(
        "queue_places",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("model_version", sa.String(length=128), nullable=False),
        sa.Column("task_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("is_audit", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint(
            "project_id", "model_version", "task_id", name=op.f("pk_queue_places")
        ),
    )


def _add_versions(table: str, source: str) -> None:
    with op.batch_alter_table(table) as batch:
        batch.add_column(sa.Column("question_version", sa.String(length=128), nullable=True))
    op.execute(f"UPDATE {table} SET question_version = {source}")  # noqa: S608
    with op.batch_alter_table(table) as batch:
        batch.alter_column("question_version", existing_type=sa.String(length=128), nullable=False)
