"""Pictures of the console: replays a stream of requests through a real server and takes them in a real browser."""
