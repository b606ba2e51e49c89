"""The pipeline of an evaluation: decode, resolve, validate, admit, batch, compute, encode."""
