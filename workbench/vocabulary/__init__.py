"""What is said: cells, sweeps, records, devices, systems, metrics. Nothing here imports torch."""
