"""The distillation module, the trainer, and the acts `finetune` and `distill`."""
