"""How a program runs: one executor, and a file for each backend."""
