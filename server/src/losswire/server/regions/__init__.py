"""Same-host regions: memory that the server makes and shares with a caller on the same machine."""
