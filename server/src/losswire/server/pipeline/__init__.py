"""The pipeline of an evaluation: decode, resolve, validate, admit, compute, encode."""
