"""What `layerstill compress` keeps of MiniLM teachers on nine tasks."""
