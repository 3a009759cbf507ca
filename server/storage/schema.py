"""The tables. Migrations create them; a test holds the two together."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

metadata = MetaData()

_SEQ = BigInteger().with_variant(Integer, "sqlite")
# Hexadecimal digits, in the order of their bytes: on PostgreSQL the ids cut the log into ranges of time.
_DECISION_ID = String(32).with_variant(String(32, collation="C"), "postgresql")


class _AnyText(TypeDecorator[str]):
    """Text with any character. PostgreSQL knows no NUL: there it becomes the replacement character."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return value.replace("\0", "\ufffd") if value and dialect.name == "postgresql" else value


log_head = Table(
    "log_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("time_us", BigInteger, nullable=False),
    Column("floor_seq", BigInteger, nullable=False, comment="decisions and reports up to here were dropped"),
    Column("floored_seq", BigInteger, nullable=False, comment="the position at which the last were dropped"),
    Column("partitioned_until", String(32), nullable=False, comment="decision ids below it have a partition"),
    Column("aged_us", BigInteger, nullable=False, comment="when the retention last looked"),
    comment="One row: the last position and time given out. Its update orders all writers.",
)

log_gaps = Table(
    "log_gaps",
    metadata,
    Column("end_us", BigInteger, primary_key=True, autoincrement=False),
    Column("length_us", BigInteger, nullable=False),
    comment="Times that the retention does not count: no server was there, or the clock jumped.",
)

decisions = Table(
    "decisions",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=False),
    Column("time_us", BigInteger, nullable=False),
    Column("expire_us", BigInteger, nullable=False),
    Column("router", String(63), nullable=False),
    Column("router_uid", BigInteger, nullable=False, comment="position in the log that created it"),
    Column("decision_id", _DECISION_ID, nullable=False, unique=True),
    Column("request_id", String(128)),
    Column("session_id", String(128)),
    Column("model", String(127), nullable=False),
    Column("propensity", Double, nullable=False),
    Column("policy", String(160), nullable=False),
    Column("snapshot", BigInteger, nullable=False),
    Column("deferred", Boolean, nullable=False),
    Column("features", LargeBinary, nullable=False, comment="float32, little endian"),
    Column("details", Text, nullable=False, comment="JSON, see server.storage.codec"),
    Column("prompt", _AnyText, comment="only where the router stores prompts"),
    Column("second_model", String(127), comment="the model to be called as well, if any"),
    Column("second_cost_usd", Double, comment="what that call was predicted to cost"),
)
# Not unique on PostgreSQL, where that would take the decision's id into it: there it is the writers' turns that
# make a request's decision the only one.
Index("ix_decisions_request", decisions.c.router_uid, decisions.c.request_id, unique=True)
Index("ix_decisions_expire", decisions.c.expire_us)
Index(
    "ix_decisions_session",
    decisions.c.router_uid,
    decisions.c.session_id,
    decisions.c.seq,
    sqlite_where=decisions.c.session_id.is_not(None),
    postgresql_where=decisions.c.session_id.is_not(None),
)

reports = Table(
    "reports",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=False),
    Column("time_us", BigInteger, nullable=False),
    Column("decision_id", _DECISION_ID, nullable=False),
    Column("report_id", String(128)),
    Column("activation", Boolean, nullable=False),
    Column("reward", Double),
    Column("signals", Text, comment="JSON object of numbers"),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cost_usd", Double),
    Column("cached_input_tokens", BigInteger, comment="of input_tokens; null before revision 0002"),
    Column("latency_seconds", Double),
    Column("served_model", String(127)),
    Column("error", String(32)),
    Column("event_time_us", BigInteger),
    Column("late", Boolean, nullable=False),
    Column("subject", String(127), nullable=False, comment="the model it is about"),
    Column("learned_reward", Double, comment="what the decision's reward became with it, if it changed"),
    Column("replaces_reward", Double, comment="what the decision's reward was before, if there was one"),
    Column("replaces_seq", BigInteger, comment="the report that had made it so"),
    Column("charged_usd", Double, comment="what it adds to the decision's cost"),
    Column("settles", Boolean, nullable=False, comment="the first to tell a cost"),
    Column("activates", Boolean, nullable=False, comment="the first to make it count"),
    Column("second", Boolean, comment="on the second call; null before revision 0005"),
)
Index("ix_reports_decision", reports.c.decision_id, reports.c.report_id, unique=True)

changes = Table(
    "changes",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=False),
    Column("time_us", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False, comment="registry, policy or tick"),
    Column("router", String(63), nullable=False),
    Column("payload", Text, comment="JSON of the router with its models, of a policy with its candidates"),
)

routers = Table(
    "routers",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("uid", BigInteger, nullable=False),
    Column("spec", Text, nullable=False),
    Column("declared", Text, comment="the spec last taken from a file"),
    Column("revision", BigInteger, nullable=False),
    Column("create_us", BigInteger, nullable=False),
    Column("update_us", BigInteger, nullable=False),
    Column("delete_us", BigInteger),
)

models = Table(
    "models",
    metadata,
    Column("router", String(63), primary_key=True),
    Column("id", String(127), primary_key=True),
    Column("uid", BigInteger, nullable=False, comment="position in the log that created it"),
    Column("spec", Text, nullable=False),
    Column("declared", Text, comment="the spec last taken from a file"),
    Column("revision", BigInteger, nullable=False),
    Column("create_us", BigInteger, nullable=False),
    Column("update_us", BigInteger, nullable=False),
    Column("delete_us", BigInteger),
)

policies = Table(
    "policies",
    metadata,
    Column("router_uid", BigInteger, primary_key=True, autoincrement=False),
    Column("id", String(63), primary_key=True),
    Column("router", String(63), nullable=False),
    Column("spec", Text, nullable=False, comment="JSON of the candidate"),
    Column("state", String(16), nullable=False),
    Column("canary_share", Double, nullable=False),
    Column("create_seq", BigInteger, nullable=False, comment="evaluated from here on"),
    Column("former_spec", Text, comment="JSON of the router's spec when it was the live policy"),
    Column("revision", BigInteger, nullable=False),
    Column("create_us", BigInteger, nullable=False),
    Column("update_us", BigInteger, nullable=False),
)

promotions = Table(
    "promotions",
    metadata,
    Column("router_uid", BigInteger, primary_key=True, autoincrement=False),
    Column("settings", Text, nullable=False, comment="JSON of policy.promotion.Promotion"),
    Column("revision", BigInteger, nullable=False),
)

transitions = Table(
    "transitions",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("policy", String(63), primary_key=True),
    Column("time_us", BigInteger, nullable=False),
    Column("router", String(63), nullable=False),
    Column("router_uid", BigInteger, nullable=False),
    Column("from_state", String(16), nullable=False, comment="empty for a new one"),
    Column("to_state", String(16), nullable=False),
    Column("canary_share", Double, nullable=False),
    Column("forced", Boolean, nullable=False),
    Column("automatic", Boolean, nullable=False),
    Column("actor", String(256), nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", Text, nullable=False, comment="JSON of what was known of it then"),
    Column(
        "kind",
        String(16),
        nullable=False,
        server_default="policy",
        comment="policy, settings or snapshot",
    ),
    Column("snapshot", String(63)),
)
Index("ix_transitions_router", transitions.c.router_uid, transitions.c.seq)

second_days = Table(
    "second_days",
    metadata,
    Column("router_uid", BigInteger, primary_key=True, autoincrement=False),
    Column("day", BigInteger, primary_key=True, autoincrement=False, comment="since 1970, in UTC"),
    Column("usd", Double, nullable=False, comment="of second calls: reported, or else predicted"),
)

history = Table(
    "history",
    metadata,
    Column("router_uid", BigInteger, primary_key=True, autoincrement=False),
    Column("level_minutes", Integer, primary_key=True, autoincrement=False, comment="1, 60 or 1440: its length"),
    Column("start_minute", BigInteger, primary_key=True, autoincrement=False, comment="since 1970, in UTC"),
    Column("model", String(127), primary_key=True),
    Column("decisions", BigInteger, nullable=False),
    Column("explorations", BigInteger, nullable=False),
    Column("rewards", BigInteger, nullable=False),
    Column("reward_sum", Double, nullable=False),
    Column("cost_usd", Double, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("closed", BigInteger, nullable=False, comment="windows that ended"),
    Column("missing", BigInteger, nullable=False, comment="of them those without a reward"),
    Column("late", BigInteger, nullable=False, comment="reports after the window"),
)

history_cursor = Table(
    "history_cursor",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False, comment="the log is counted up to here, inclusive"),
    Column("closed_through_us", BigInteger, nullable=False, comment="and windows up to this end"),
    comment="One row.",
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("digest", LargeBinary, nullable=False, comment="SHA-256 of the key; the key itself is nowhere"),
    Column("scopes", Text, nullable=False, comment="JSON list"),
    Column("routers", Text, comment="JSON list of ids; null is all"),
    Column("requests_per_second", Double),
    Column("burst", BigInteger),
    Column("concurrent_max", BigInteger),
    Column("create_us", BigInteger, nullable=False),
    Column("expire_us", BigInteger),
    Column("revoke_us", BigInteger, comment="set once; rows are never deleted"),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("router", String(63), primary_key=True),
    Column("seq", BigInteger, nullable=False, comment="evaluated up to here, inclusive"),
    Column("since_seq", BigInteger, nullable=False, comment="the live policy is what it is from here on"),
    Column("time_us", BigInteger, nullable=False),
    Column("closed_through_us", BigInteger, nullable=False),
    Column("payload", Text, nullable=False, comment="JSON of the router with its candidates"),
    Column("state", LargeBinary, nullable=False, comment="compressed with zlib"),
)

views = Table(
    "views",
    metadata,
    Column("router", String(63), primary_key=True),
    Column("canary", Boolean, primary_key=True, comment="of the router's canary, not of its live policy"),
    Column("candidate", String(63), nullable=False, comment="the canary's name; else empty"),
    Column("seq", BigInteger, nullable=False, comment="learned up to here; never replaced by an older"),
    Column("time_us", BigInteger, nullable=False),
    Column("state", LargeBinary, comment="null: there is none any more"),
)

learner_head = Table(
    "learner_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("time_us", BigInteger, nullable=False),
    Column("holder", String(256), nullable=False, comment="the host and process that learns"),
    comment="One row: up to where the log is learned, all its views published.",
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("router", String(63), primary_key=True),
    Column("seq", BigInteger, primary_key=True, comment="learned up to here, inclusive"),
    Column("time_us", BigInteger, nullable=False),
    Column("closed_through_us", BigInteger, nullable=False),
    Column("payload", Text, nullable=False, comment="JSON of the router with its models"),
    Column("state", LargeBinary, nullable=False),
)

snapshot_archive = Table(
    "snapshot_archive",
    metadata,
    Column("router_uid", BigInteger, primary_key=True, autoincrement=False),
    Column("id", String(63), primary_key=True),
    Column("router", String(63), nullable=False),
    Column("seq", BigInteger, comment="learned up to here; null of an imported one"),
    Column("time_us", BigInteger, nullable=False),
    Column("closed_through_us", BigInteger, nullable=False),
    Column("source", String(160), nullable=False, comment="what was imported; else empty"),
    Column("digest", String(64), nullable=False, comment="SHA-256 of the state, hexadecimal"),
    Column("referred", Boolean, nullable=False, comment="the log refers to it: it is never removed"),
    Column("payload", Text, nullable=False, comment="JSON of the router with its models"),
    Column("state", LargeBinary, nullable=False),
)
