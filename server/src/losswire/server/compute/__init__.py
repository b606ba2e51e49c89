"""How numbers are made: the only place that knows autograd and closed forms."""
