"""The benchmark of processes: what several on one database answer, where the machine has room for them."""
