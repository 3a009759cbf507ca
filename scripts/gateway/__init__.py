"""A benchmark of the whole way: SDK, gateway, server, providers and back."""
