"""Data sets of any kind, read as batches of rows."""
