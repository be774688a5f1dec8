"""`backend="eager"`: the user's own methods on real tensors; nothing is traced."""
