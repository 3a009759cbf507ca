"""JSON over HTTP: a door that passes every call on to the gRPC server."""
