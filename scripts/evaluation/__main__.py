"""Runs the command line of the benchmark of evaluations."""

from __future__ import annotations

from scripts.evaluation.command import main

if __name__ == "__main__":
    main()
