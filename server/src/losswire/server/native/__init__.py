"""Losses computed by code of our own, where this installation has it (`server/native`)."""
