"""The models that a round began with: a worker that is set to others does not go on with it."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Apply."""
    op.add_column("rounds", sa.Column("models", sa.Text(), nullable=True))
