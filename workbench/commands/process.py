"""What a command may know of the process that it runs in."""

is_program = False
"""Whether the process was started for one command and ends with it; ``cli.main`` says so."""
