"""Runs the command line of the benchmark of processes."""

from __future__ import annotations

from scripts.processes.command import main

if __name__ == "__main__":
    main()
