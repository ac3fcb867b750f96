"""Counts to bytes, seconds and thresholds on a device that need not be here."""

SOLVE = ("visual", "batch", "images", "pixels", "frames", "minutes")
"""What a threshold is solved for: here, so that a command line knows without torch."""
