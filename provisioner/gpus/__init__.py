"""What is known about GPUs without asking anybody. Pure."""
