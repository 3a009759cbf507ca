"""The log and the registry on disk."""
