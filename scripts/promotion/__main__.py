"""Runs the command line of the benchmark of promotions."""

from __future__ import annotations

from scripts.promotion.command import main

if __name__ == "__main__":
    main()
