"""Errors of closed forms beside those of torch, both against wider arithmetic."""
