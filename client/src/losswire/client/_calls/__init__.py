"""One call: its tries, and the transports it can use."""
