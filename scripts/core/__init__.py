"""The benchmark of the core: how fast decisions are made and learned from, without a server."""
