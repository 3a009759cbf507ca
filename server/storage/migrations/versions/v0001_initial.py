"""The log, the registry and the snapshots.

One function, however long: it is a list of tables, and stays as it was when there were databases made by it.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


# PostgreSQL keeps what grows in partitions, by the time that a decision's id begins with: a decision and its reports
# stand in partitions of the same bounds, and go together. A key that is unique must have the id in it there.
PARTITIONED = {"postgresql_partition_by": "RANGE (decision_id)"}
DECISION_ID = sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql")


def upgrade() -> None:
    partitioned = op.get_context().dialect.name == "postgresql"
    key = ("seq", "decision_id") if partitioned else ("seq",)
    op.create_table(
        "changes",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False, comment="registry, policy or tick"),
        sa.Column("router", sa.String(length=63), nullable=False),
        sa.Column(
            "payload",
            sa.Text(),
            nullable=True,
            comment="JSON of the router with its models, of a policy with its candidates",
        ),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_table(
        "decisions",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("expire_us", sa.BigInteger(), nullable=False),
        sa.Column("router", sa.String(length=63), nullable=False),
        sa.Column("router_uid", sa.BigInteger(), nullable=False, comment="position in the log that created it"),
        sa.Column("decision_id", DECISION_ID, nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.Column("session_id", sa.String(length=128), nullable=True),
        sa.Column("model", sa.String(length=127), nullable=False),
        sa.Column("propensity", sa.Double(), nullable=False),
        sa.Column("policy", sa.String(length=160), nullable=False),
        sa.Column("snapshot", sa.BigInteger(), nullable=False),
        sa.Column("deferred", sa.Boolean(), nullable=False),
        sa.Column(
            "features",
            sa.LargeBinary(),
            nullable=False,
            comment="float32, little endian",
        ),
        sa.Column(
            "details",
            sa.Text(),
            nullable=False,
            comment="JSON, see server.storage.codec",
        ),
        sa.Column(
            "prompt",
            sa.Text(),
            nullable=True,
            comment="only where the router stores prompts",
        ),
        sa.PrimaryKeyConstraint(*key),
        sa.UniqueConstraint("decision_id"),
        **PARTITIONED,
    )
    op.create_index("ix_decisions_expire", "decisions", ["expire_us"], unique=False)
    op.create_index("ix_decisions_request", "decisions", ["router_uid", "request_id"], unique=not partitioned)
    op.create_index(
        "ix_decisions_session",
        "decisions",
        ["router_uid", "session_id", "seq"],
        unique=False,
        sqlite_where=sa.text("session_id IS NOT NULL"),
        postgresql_where=sa.text("session_id IS NOT NULL"),
    )
    op.create_table(
        "log_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="One row: the last position and time given out. Its update orders all writers.",
    )
    op.create_table(
        "models",
        sa.Column("router", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=127), nullable=False),
        sa.Column(
            "uid",
            sa.BigInteger(),
            nullable=False,
            comment="position in the log that created it",
        ),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column(
            "declared",
            sa.Text(),
            nullable=True,
            comment="the spec last taken from a file",
        ),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.Column("update_us", sa.BigInteger(), nullable=False),
        sa.Column("delete_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("router", "id"),
    )
    op.create_table(
        "reports",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("decision_id", DECISION_ID, nullable=False),
        sa.Column("report_id", sa.String(length=128), nullable=True),
        sa.Column("activation", sa.Boolean(), nullable=False),
        sa.Column("reward", sa.Double(), nullable=True),
        sa.Column("signals", sa.Text(), nullable=True, comment="JSON object of numbers"),
        sa.Column("input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("output_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cost_usd", sa.Double(), nullable=True),
        sa.Column("latency_seconds", sa.Double(), nullable=True),
        sa.Column("served_model", sa.String(length=127), nullable=True),
        sa.Column("error", sa.String(length=32), nullable=True),
        sa.Column("event_time_us", sa.BigInteger(), nullable=True),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column(
            "subject",
            sa.String(length=127),
            nullable=False,
            comment="the model it is about",
        ),
        sa.Column(
            "learned_reward",
            sa.Double(),
            nullable=True,
            comment="what the decision's reward became with it, if it changed",
        ),
        sa.Column(
            "replaces_reward",
            sa.Double(),
            nullable=True,
            comment="what the decision's reward was before, if there was one",
        ),
        sa.Column(
            "replaces_seq",
            sa.BigInteger(),
            nullable=True,
            comment="the report that had made it so",
        ),
        sa.Column(
            "charged_usd",
            sa.Double(),
            nullable=True,
            comment="what it adds to the decision's cost",
        ),
        sa.Column("settles", sa.Boolean(), nullable=False, comment="the first to tell a cost"),
        sa.Column(
            "activates",
            sa.Boolean(),
            nullable=False,
            comment="the first to make it count",
        ),
        sa.PrimaryKeyConstraint(*key),
        **PARTITIONED,
    )
    op.create_index("ix_reports_decision", "reports", ["decision_id", "report_id"], unique=True)
    op.create_table(
        "routers",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("uid", sa.BigInteger(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column(
            "declared",
            sa.Text(),
            nullable=True,
            comment="the spec last taken from a file",
        ),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.Column("update_us", sa.BigInteger(), nullable=False),
        sa.Column("delete_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "snapshots",
        sa.Column("router", sa.String(length=63), nullable=False),
        sa.Column(
            "seq",
            sa.BigInteger(),
            nullable=False,
            comment="learned up to here, inclusive",
        ),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("closed_through_us", sa.BigInteger(), nullable=False),
        sa.Column(
            "payload",
            sa.Text(),
            nullable=False,
            comment="JSON of the router with its models",
        ),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("router", "seq"),
    )
    op.execute("INSERT INTO log_head (id, seq, time_us) VALUES (1, 0, 0)")


def downgrade() -> None:
    op.drop_table("snapshots")
    op.drop_table("routers")
    op.drop_index("ix_reports_decision", table_name="reports")
    op.drop_table("reports")
    op.drop_table("models")
    op.drop_table("log_head")
    op.drop_index(
        "ix_decisions_session",
        table_name="decisions",
        sqlite_where=sa.text("session_id IS NOT NULL"),
        postgresql_where=sa.text("session_id IS NOT NULL"),
    )
    op.drop_index("ix_decisions_request", table_name="decisions")
    op.drop_index("ix_decisions_expire", table_name="decisions")
    op.drop_table("decisions")
    op.drop_table("changes")
