"""Memory that is shared with a server on the same machine."""
