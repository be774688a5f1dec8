"""What is computed: the symbolic graph of a vertex function, and the input graphs it runs over."""
