"""What is here: CPU and GPUs, their driver, versions, ranks."""
