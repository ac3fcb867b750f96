"""The command line's commands. Nothing heavy is imported before a command runs."""
