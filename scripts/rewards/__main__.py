"""Runs the command line of the benchmark of rewards."""

from __future__ import annotations

from scripts.rewards.command import main

if __name__ == "__main__":
    main()
