"""Evaluations whose rows stream: read, computed and answered part by part, in bounded memory."""
