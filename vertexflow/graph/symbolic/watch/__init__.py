"""What may change between two calls of a model, noticed at the next one."""
