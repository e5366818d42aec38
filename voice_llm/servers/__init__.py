"""The engine's edges: gRPC, OpenAI-compatible HTTP, WebSocket and metrics. Protobuf and JSON stop here."""
