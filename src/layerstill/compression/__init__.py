"""From a teacher to a student that fits a budget: what is tried, what comes of it, and the choice among the rows."""
