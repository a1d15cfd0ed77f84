"""WORKERS: rows, prompts, features and batches."""
