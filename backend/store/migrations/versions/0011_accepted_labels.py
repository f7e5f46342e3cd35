"""Labels that were accepted as annotations in Label Studio, so that they can be taken back."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "accepted_labels",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("task_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("unique_id", sa.String(length=36), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("model_version", sa.String(length=128), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("sent_at", sa.DateTime(), nullable=True),
        sa.Column("annotation_id", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("project_id", "task_id", name=op.f("pk_accepted_labels")),
    )
