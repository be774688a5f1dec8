"""A call of a model: what it is given, whether it is like an earlier one, what it is bound to, and what it returns."""
