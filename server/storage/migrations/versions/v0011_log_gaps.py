"""The times in which nobody was there to let the log grow old.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "log_gaps",
        sa.Column("end_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("length_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("end_us"),
        comment="Times that the retention does not count: no server was there, or the clock jumped.",
    )
    op.add_column(
        "log_head",
        sa.Column(
            "aged_us",
            sa.BigInteger(),
            nullable=False,
            server_default="0",
            comment="when the retention last looked",
        ),
    )


def downgrade() -> None:
    op.drop_column("log_head", "aged_us")
    op.drop_table("log_gaps")
