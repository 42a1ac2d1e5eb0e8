"""Which recipe should be the default: candidates on several tasks, at two budgets."""
