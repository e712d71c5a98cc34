"""Checks of the running platform: health of its services, and the flow compared row by row."""
