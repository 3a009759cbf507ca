"""Traces by OpenTelemetry, for those who ask for them."""
