"""What was dropped of the log, and which partitions it has.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # SQLite has no partitions: no id is at or above this.
    until = "" if op.get_context().dialect.name == "postgresql" else "~"
    for column in (
        sa.Column(
            "floor_seq",
            sa.BigInteger(),
            nullable=False,
            server_default="0",
            comment="decisions and reports up to here were dropped",
        ),
        sa.Column(
            "floored_seq",
            sa.BigInteger(),
            nullable=False,
            server_default="0",
            comment="the position at which the last were dropped",
        ),
        sa.Column(
            "partitioned_until",
            sa.String(length=32),
            nullable=False,
            server_default=until,
            comment="decision ids below it have a partition",
        ),
    ):
        op.add_column("log_head", column)


def downgrade() -> None:
    for name in ("partitioned_until", "floored_seq", "floor_seq"):
        op.drop_column("log_head", name)
