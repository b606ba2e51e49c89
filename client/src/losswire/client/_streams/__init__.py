"""EvaluateStream."""
