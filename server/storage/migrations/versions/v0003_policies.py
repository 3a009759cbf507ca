"""Candidate policies, their transitions, and the state of their evaluation.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "policies",
        sa.Column("router_uid", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("router", sa.String(length=63), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False, comment="JSON of the candidate"),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("canary_share", sa.Double(), nullable=False),
        sa.Column("create_seq", sa.BigInteger(), nullable=False, comment="evaluated from here on"),
        sa.Column(
            "former_spec",
            sa.Text(),
            nullable=True,
            comment="JSON of the router's spec when it was the live policy",
        ),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.Column("update_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("router_uid", "id"),
    )
    op.create_table(
        "promotions",
        sa.Column("router_uid", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("settings", sa.Text(), nullable=False, comment="JSON of policy.promotion.Promotion"),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("router_uid"),
    )
    op.create_table(
        "transitions",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("policy", sa.String(length=63), nullable=False),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("router", sa.String(length=63), nullable=False),
        sa.Column("router_uid", sa.BigInteger(), nullable=False),
        sa.Column("from_state", sa.String(length=16), nullable=False, comment="empty for a new one"),
        sa.Column("to_state", sa.String(length=16), nullable=False),
        sa.Column("canary_share", sa.Double(), nullable=False),
        sa.Column("forced", sa.Boolean(), nullable=False),
        sa.Column("automatic", sa.Boolean(), nullable=False),
        sa.Column("actor", sa.String(length=256), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False, comment="JSON of what was known of it then"),
        sa.PrimaryKeyConstraint("seq", "policy"),
    )
    op.create_index("ix_transitions_router", "transitions", ["router_uid", "seq"])
    op.create_table(
        "evaluations",
        sa.Column("router", sa.String(length=63), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False, comment="evaluated up to here, inclusive"),
        sa.Column(
            "since_seq", sa.BigInteger(), nullable=False, comment="the live policy is what it is from here on"
        ),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("closed_through_us", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False, comment="JSON of the router with its candidates"),
        sa.Column("state", sa.LargeBinary(), nullable=False, comment="compressed with zlib"),
        sa.PrimaryKeyConstraint("router"),
    )


def downgrade() -> None:
    op.drop_table("evaluations")
    op.drop_table("transitions")
    op.drop_table("promotions")
    op.drop_table("policies")
