"""Input tokens that were in the provider's cache.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "reports",
        sa.Column(
            "cached_input_tokens",
            sa.BigInteger(),
            nullable=True,
            comment="of input_tokens; null before revision 0002",
        ),
    )


def downgrade() -> None:
    op.drop_column("reports", "cached_input_tokens")
