"""Tables for people to read."""
