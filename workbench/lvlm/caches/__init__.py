"""Keys and values that are held between forwards."""
