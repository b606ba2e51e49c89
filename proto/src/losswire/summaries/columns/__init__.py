"""Columns of tables as arrays: of lists, numpy and Arrow, for the SDK and for the server's JSON.

pyarrow is imported only where something is in Arrow's memory.
"""
