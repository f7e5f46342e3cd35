"""Why a project is not connected; label models of several labels are fitted anew."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Apply."""
    op.add_column("projects", sa.Column("disconnection", sa.String(length=16), nullable=True))
    op.add_column("projects", sa.Column("disconnected_why", sa.Text(), nullable=True))
    op.execute("DELETE FROM project_state WHERE name = 'label_model' AND value LIKE '%base_rates%'")
