"""The command line, one command a file."""

import os

# Read when gRPC is first imported: its core would add lines of its own to the one that says what is wrong.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
