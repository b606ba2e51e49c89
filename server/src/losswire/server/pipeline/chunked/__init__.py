"""The straight line, part by part: EvaluateChunked."""
