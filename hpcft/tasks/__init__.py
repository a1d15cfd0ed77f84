"""WORKERS: what is learnt. One file a task, each turning rows into features."""
