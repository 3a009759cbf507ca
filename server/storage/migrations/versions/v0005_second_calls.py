"""Second calls, and what they have cost on each day.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "decisions",
        sa.Column(
            "second_model", sa.String(length=127), nullable=True, comment="the model to be called as well, if any"
        ),
    )
    op.add_column(
        "decisions",
        sa.Column("second_cost_usd", sa.Double(), nullable=True, comment="what that call was predicted to cost"),
    )
    op.add_column(
        "reports",
        sa.Column("second", sa.Boolean(), nullable=True, comment="on the second call; null before revision 0005"),
    )
    op.create_table(
        "second_days",
        sa.Column("router_uid", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("day", sa.BigInteger(), autoincrement=False, nullable=False, comment="since 1970, in UTC"),
        sa.Column("usd", sa.Double(), nullable=False, comment="of second calls: reported, or else predicted"),
        sa.PrimaryKeyConstraint("router_uid", "day"),
    )


def downgrade() -> None:
    op.drop_table("second_days")
    op.drop_column("reports", "second")
    op.drop_column("decisions", "second_cost_usd")
    op.drop_column("decisions", "second_model")
