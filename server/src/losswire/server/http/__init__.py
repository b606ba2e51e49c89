"""The HTTP door: JSON, multipart and the console, in front of the same pipeline as gRPC."""
