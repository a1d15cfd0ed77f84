"""Workers: what a model's answers are worth, and where they are kept."""
