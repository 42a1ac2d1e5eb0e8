"""What keeps the documents up to date."""
