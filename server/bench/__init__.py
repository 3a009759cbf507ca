"""The benchmark: a load, the server under it, and the echo server it is compared with."""
