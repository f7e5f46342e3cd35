"""Tell annotations that were copied from predictions from those that people made."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Apply; what is stored does not say which it is, so every project is listed once more."""
    op.add_column(
        "human_labels",
        sa.Column("is_copied", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.execute("UPDATE projects SET full_sync_at = NULL")
