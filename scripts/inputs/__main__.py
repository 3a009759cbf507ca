"""Runs the command line of the check of inputs."""

from __future__ import annotations

from scripts.inputs.command import main

if __name__ == "__main__":
    main()
