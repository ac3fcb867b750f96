"""Files, texts and names from outside, which are read as if they were hostile."""
