"""One call: its tries, and the ways it can take."""
