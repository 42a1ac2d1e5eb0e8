"""Students distilled on running text, and what they are worth once they are fine-tuned."""
