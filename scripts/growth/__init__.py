"""The benchmark of time: what a server costs once its log has grown, and what it holds after minutes of load."""
