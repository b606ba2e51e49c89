"""Who holds how many bytes: the budget, resident tensors, uploads, regions."""
