"""The questions that a report can answer: one a file."""
