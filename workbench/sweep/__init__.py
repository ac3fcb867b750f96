"""Sweeps: the only place where probes meet the store."""
