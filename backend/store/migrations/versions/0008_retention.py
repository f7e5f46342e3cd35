"""Remember since when a project is disconnected: its data is deleted after a grace."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("projects") as batch:
        batch.add_column(sa.Column("disconnected_at", sa.DateTime(), nullable=True))
    projects = sa.table(
        "projects", sa.column("is_connected", sa.Boolean), sa.column("disconnected_at", sa.DateTime)
    )
    is_disconnected = projects.c.is_connected.is_(False)
    moment = datetime.now(UTC).replace(tzinfo=None)
    op.execute(sa.update(projects).where(is_disconnected).values(disconnected_at=moment))
