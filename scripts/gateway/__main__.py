"""Runs the command line of the benchmark of the gateway."""

from __future__ import annotations

from scripts.gateway.command import main

if __name__ == "__main__":
    main()
