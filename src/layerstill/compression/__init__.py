"""From a teacher to a student that fits a budget: what is tried, the rows that come of it, and the choice among them."""
