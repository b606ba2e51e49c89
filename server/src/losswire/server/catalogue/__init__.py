"""What a loss's record is, and which losses there are."""
