"""What an iteration does, told from shapes alone: operators, blocks of memory, states."""
