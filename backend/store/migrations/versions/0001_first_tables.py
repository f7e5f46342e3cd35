"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Apply."""
    _create_projects()
    _create_tasks()
    _create_labels()
    _create_work()


def _create_projects() -> None:
    op.create_table(
        "model_versions",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("provenance", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("withdrawn_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("project_id", "name", name=op.f("pk_model_versions")),
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("label_config", sa.Text(), nullable=False),
        sa.Column("instruction", sa.Text(), nullable=False),
        sa.Column("model_version", sa.String(length=128), nullable=False),
        sa.Column("is_connected", sa.Boolean(), nullable=False),
        sa.Column("served_version", sa.String(length=128), nullable=True),
        sa.Column("full_sync_at", sa.DateTime(), nullable=True),
        sa.Column("full_sync_s", sa.Float(), nullable=False),
        sa.Column("n_foreign_predictions", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
    )


def _create_tasks() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("received_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.UniqueConstraint("project_id", "key", name=op.f("uq_events_project_id_key")),
    )
    op.create_table(
        "human_labels",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("annotation_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("task_id", sa.BigInteger(), nullable=True),
        sa.Column("annotator_id", sa.BigInteger(), nullable=True),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("was_cancelled", sa.Boolean(), nullable=False),
        sa.Column("is_ground_truth", sa.Boolean(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("project_id", "annotation_id", name=op.f("pk_human_labels")),
    )
    op.create_index(
        op.f("ix_human_labels_project_id_task_id"),
        "human_labels",
        ["project_id", "task_id"],
        unique=False,
    )
    op.create_table(
        "tasks",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("project_id", "id", name=op.f("pk_tasks")),
    )


def _create_labels() -> None:
    op.create_table(
        "predictions",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("model_version", sa.String(length=128), nullable=False),
        sa.Column("task_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("offered_at", sa.DateTime(), nullable=True),
        sa.Column("sent_at", sa.DateTime(), nullable=True),
        sa.Column("published_at", sa.DateTime(), nullable=True),
        sa.Column("refusal", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint(
            "project_id", "model_version", "task_id", name=op.f("pk_predictions")
        ),
    )
    op.create_index(
        op.f("ix_predictions_project_id_model_version_published_at"),
        "predictions",
        ["project_id", "model_version", "published_at"],
        unique=False,
    )
    op.create_table(
        "weak_labels",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("model_version", sa.String(length=128), nullable=False),
        sa.Column("task_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("question", sa.String(length=256), nullable=False),
        sa.Column("annotator", sa.String(length=256), nullable=False),
        sa.Column("prompt_version", sa.String(length=64), nullable=False),
        sa.Column("probabilities", sa.Text(), nullable=True),
        sa.Column("abstention", sa.String(length=32), nullable=True),
        sa.Column("abstention_detail", sa.Text(), nullable=True),
        sa.Column("label_mass", sa.Float(), nullable=True),
        sa.Column("is_truncated", sa.Boolean(), nullable=False),
        sa.Column("n_tokens_in", sa.Integer(), nullable=False),
        sa.Column("n_tokens_out", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint(
            "project_id",
            "model_version",
            "task_id",
            "question",
            "annotator",
            name=op.f("pk_weak_labels"),
        ),
    )
    op.create_index(
        op.f("ix_weak_labels_project_id_model_version_created_at"),
        "weak_labels",
        ["project_id", "model_version", "created_at"],
        unique=False,
    )


def _create_work() -> None:
    op.create_table(
        "job_requests",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("requested_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "kind", name=op.f("pk_job_requests")),
    )
    op.create_table(
        "problems",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(), nullable=False),
        sa.Column("n_times", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "source", name=op.f("pk_problems")),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("seen_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
