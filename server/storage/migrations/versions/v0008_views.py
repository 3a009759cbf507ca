"""Published views, and how far the learner has come.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "views",
        sa.Column("router", sa.String(length=63), nullable=False),
        sa.Column(
            "canary", sa.Boolean(), nullable=False, comment="of the router's canary, not of its live policy"
        ),
        sa.Column("candidate", sa.String(length=63), nullable=False, comment="the canary's name; else empty"),
        sa.Column(
            "seq", sa.BigInteger(), nullable=False, comment="learned up to here; never replaced by an older"
        ),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=True, comment="null: there is none any more"),
        sa.PrimaryKeyConstraint("router", "canary"),
    )
    op.create_table(
        "learner_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(length=256), nullable=False, comment="the host and process that learns"),
        sa.PrimaryKeyConstraint("id"),
        comment="One row: up to where the log is learned, all its views published.",
    )


def downgrade() -> None:
    op.drop_table("learner_head")
    op.drop_table("views")
