"""WORKERS: the training loop, the model, checkpoints and evaluation."""
