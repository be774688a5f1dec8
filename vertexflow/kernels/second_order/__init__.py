"""Gradients of gradients: the forward pass replayed in operations that PyTorch differentiates."""
