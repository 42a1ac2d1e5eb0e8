"""Tasks, files, collation."""
