"""The distillation module, its trainer, what a run keeps and what it is planned to cost."""
