"""Speed and memory targets, measured in one run: `make bench` prints each beside its target."""
