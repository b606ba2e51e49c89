"""The computation of losses and gradients: the only place that knows autograd and closed forms."""
