"""A page a file, each with a ``render()``; importing one draws nothing."""
