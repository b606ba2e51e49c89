"""Closed forms: losses and gradients without autograd, a block of rows at a time."""
