"""The learning core: features, learning, deciding, pacing, joining. Pure: no I/O, clock or global randomness."""
