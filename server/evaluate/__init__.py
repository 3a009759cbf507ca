"""Evaluations of candidate policies: over logged decisions in a file, shown as a table, JSON and a picture."""
