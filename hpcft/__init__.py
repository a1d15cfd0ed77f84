"""Fine-tune language models over chains of Slurm jobs, with exact resume and one stitched loss curve."""

__version__ = "0.1.0"
