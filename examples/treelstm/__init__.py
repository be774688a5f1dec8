"""A binary tree LSTM that labels every vertex of a parse tree, trained on ListOps or the Stanford Sentiment Treebank."""
