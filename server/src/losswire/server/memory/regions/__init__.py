"""Memory that is shared with callers on the same machine."""
