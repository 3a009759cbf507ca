"""What Prometheus is told: put together when it asks, so that no request waits for it."""
