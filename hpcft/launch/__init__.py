"""LOGIN NODE: from a recipe to a queued chain, and what is known of it. Never imports torch or pandas."""
