"""The record of a loss, its parts, and the registry of losses."""
