"""A cell run on this machine: timing, memory, telemetry, traces, ceilings."""
