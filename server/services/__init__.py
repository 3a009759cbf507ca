"""The gRPC services: they translate between protobuf and the use cases, and decide nothing."""
