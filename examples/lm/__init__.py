"""A language model over sentences of any length: an LSTM without padding, next to the same model in PyTorch's packed one."""
