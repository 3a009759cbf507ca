"""Runs the command line of the benchmark of growth."""

from __future__ import annotations

from scripts.growth.command import main

if __name__ == "__main__":
    main()
