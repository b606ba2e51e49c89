"""Summaries of losses, and what follows from them."""
