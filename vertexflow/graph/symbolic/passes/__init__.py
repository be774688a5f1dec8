"""What is done to a symbolic graph between its trace and its parts, a pass or what passes share in each file."""
