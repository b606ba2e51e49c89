"""Loss and gradient in C++."""
