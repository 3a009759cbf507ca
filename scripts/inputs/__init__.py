"""Sends a server what no caller should, and looks whether it bears it."""
