"""How a cell becomes a record: measured on a device, or predicted without one."""
