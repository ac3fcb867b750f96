"""The processes in which cells run, and those who ask them."""
