"""Real servers on a real database, under load and with faults from a seed, and what must hold afterwards."""
