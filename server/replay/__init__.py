"""Replays: files of known outcomes, played here or through a running server, measured and plotted."""
