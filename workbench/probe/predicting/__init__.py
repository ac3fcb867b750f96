"""Counts to bytes, seconds and thresholds on a device that need not be here."""
