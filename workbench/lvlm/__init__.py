"""The thing under study: real decoder layers, attention systems and kernels."""
