"""Loss and gradient without autograd, by blocks of rows, in torch."""
