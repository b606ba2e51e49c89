"""The pipeline, part by part: EvaluateChunked."""
