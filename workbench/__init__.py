"""What does a visual token cost? Probes and scaling analysis for vision-language models."""

__version__ = "0.1.0"
