"""What routers did over time, counted from the log.

Revision ID: 0010
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "history",
        sa.Column("router_uid", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column(
            "level_minutes", sa.Integer(), autoincrement=False, nullable=False, comment="1, 60 or 1440: its length"
        ),
        sa.Column(
            "start_minute", sa.BigInteger(), autoincrement=False, nullable=False, comment="since 1970, in UTC"
        ),
        sa.Column("model", sa.String(length=127), nullable=False),
        sa.Column("decisions", sa.BigInteger(), nullable=False),
        sa.Column("explorations", sa.BigInteger(), nullable=False),
        sa.Column("rewards", sa.BigInteger(), nullable=False),
        sa.Column("reward_sum", sa.Double(), nullable=False),
        sa.Column("cost_usd", sa.Double(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("closed", sa.BigInteger(), nullable=False, comment="windows that ended"),
        sa.Column("missing", sa.BigInteger(), nullable=False, comment="of them those without a reward"),
        sa.Column("late", sa.BigInteger(), nullable=False, comment="reports after the window"),
        sa.PrimaryKeyConstraint("router_uid", "level_minutes", "start_minute", "model"),
    )
    op.create_table(
        "history_cursor",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False, comment="the log is counted up to here, inclusive"),
        sa.Column("closed_through_us", sa.BigInteger(), nullable=False, comment="and windows up to this end"),
        sa.PrimaryKeyConstraint("id"),
        comment="One row.",
    )
    op.execute("INSERT INTO history_cursor (id, seq, closed_through_us) VALUES (1, 0, 0)")


def downgrade() -> None:
    op.drop_table("history_cursor")
    op.drop_table("history")
