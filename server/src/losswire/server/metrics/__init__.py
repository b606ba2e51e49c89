"""What the server counts of itself, and the forms in which others read it."""
