"""One model in two trainers of others: Lightning and accelerate."""
