"""Every answer once, what it cost, weak labels of every kind, a project's measured state."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Apply."""
    _create_answers()
    for column in (
        sa.Column("spans", sa.Text(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("votes", sa.Text(), nullable=True),
        sa.Column("suspicion", sa.Text(), nullable=True),
    ):
        op.add_column("weak_labels", column)
    op.create_table(
        "project_state",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "name", name=op.f("pk_project_state")),
    )


def _create_answers() -> None:
    op.create_table(
        "llm_answers",
        sa.Column("key", sa.LargeBinary(length=16), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_llm_answers")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_llm_answers_day"), "llm_answers", ["day"], unique=False)
    op.create_table(
        "llm_usage",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("purpose", sa.String(length=64), nullable=False),
        sa.Column("n_calls", sa.BigInteger(), nullable=False),
        sa.Column("n_prompts", sa.BigInteger(), nullable=False),
        sa.Column("n_cache_hits", sa.BigInteger(), nullable=False),
        sa.Column("n_tokens_in", sa.BigInteger(), nullable=False),
        sa.Column("n_tokens_out", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "purpose", name=op.f("pk_llm_usage")),
    )
