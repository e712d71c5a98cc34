"""Millrace: the Python side of the streaming data platform."""
