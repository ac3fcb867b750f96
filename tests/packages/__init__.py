"""Tests that need timm and torchvision; ``tests/test_packages.py`` runs them with these."""
