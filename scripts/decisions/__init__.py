"""Measures decisions: Pointsman beside its peers and its yardsticks, on replay files and in changing worlds."""
