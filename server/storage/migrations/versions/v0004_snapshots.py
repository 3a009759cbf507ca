"""Snapshots that stay: imported ones, and those that the learner has gone back to. Other transitions than a policy's.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "snapshot_archive",
        sa.Column("router_uid", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("router", sa.String(length=63), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=True, comment="learned up to here; null of an imported one"),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("closed_through_us", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(length=160), nullable=False, comment="what was imported; else empty"),
        sa.Column("digest", sa.String(length=64), nullable=False, comment="SHA-256 of the state, hexadecimal"),
        sa.Column("referred", sa.Boolean(), nullable=False, comment="the log refers to it: it is never removed"),
        sa.Column("payload", sa.Text(), nullable=False, comment="JSON of the router with its models"),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("router_uid", "id"),
    )
    op.add_column(
        "transitions",
        sa.Column(
            "kind",
            sa.String(length=16),
            nullable=False,
            server_default="policy",
            comment="policy, settings or snapshot",
        ),
    )
    op.add_column("transitions", sa.Column("snapshot", sa.String(length=63), nullable=True))


def downgrade() -> None:
    op.drop_column("transitions", "snapshot")
    op.drop_column("transitions", "kind")
    op.drop_table("snapshot_archive")
