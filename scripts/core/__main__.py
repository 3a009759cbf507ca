"""Runs the command line of the benchmark of the core."""

from __future__ import annotations

from scripts.core.command import main

if __name__ == "__main__":
    main()
