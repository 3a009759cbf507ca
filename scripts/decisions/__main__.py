"""Runs the command line of the benchmark of decisions."""

from __future__ import annotations

from scripts.decisions.command import main

if __name__ == "__main__":
    main()
