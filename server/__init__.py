"""The service: gRPC, use cases, storage, the learner loop, settings and the command line."""
