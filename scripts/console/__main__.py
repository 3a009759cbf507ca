"""Runs the command line of the pictures."""

from __future__ import annotations

from scripts.console.command import main

if __name__ == "__main__":
    main()
