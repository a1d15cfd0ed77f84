"""BATCH PROCESS: the supervisor of one job. Never imports torch."""
