"""The benchmark of several servers on one PostgreSQL."""
