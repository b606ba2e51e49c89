"""Runs that a server keeps: saved, found, read and deleted by both clients."""
