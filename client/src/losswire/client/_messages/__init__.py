"""Arrays and evaluations as messages, and answers as results."""
