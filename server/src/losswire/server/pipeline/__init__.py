"""The straight line: decode, validate, admit, batch, compute, encode."""
