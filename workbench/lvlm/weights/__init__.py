"""Weights of layers: random ones, those of checkpoints, adapters beside them, and their bytes."""
