"""Building a student from a teacher or another checkpoint."""
