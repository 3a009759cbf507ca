"""Decisions made elsewhere: reads them from files, and hands them to a running server."""
