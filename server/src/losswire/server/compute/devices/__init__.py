"""Devices: copies to and from them, pinned memory, and the detection of a lost one."""
