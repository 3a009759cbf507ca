"""Runs the command line of the benchmark of roles."""

from __future__ import annotations

from scripts.roles.command import main

if __name__ == "__main__":
    main()
