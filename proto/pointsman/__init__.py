"""The wire contract of Pointsman: protobuf definitions and the Python stubs generated from them."""
