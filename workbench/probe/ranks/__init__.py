"""One training step on several ranks, under deepspeed."""
