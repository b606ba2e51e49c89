"""Several worker processes that serve at the same addresses, and the process that keeps them.

The supervisor imports no torch, so that nothing of a device can break it.
"""
