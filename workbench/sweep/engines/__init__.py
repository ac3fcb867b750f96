"""Where the tasks of a sweep run: in workers of this machine, or of a cluster."""
