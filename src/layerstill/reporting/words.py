"""A recipe's words in words, for the plan and the model card alike."""

from typing import Any


def spec_words(value: Any) -> str:
    """A word of a recipe with its settings: `{"kl": {"temperature": 2}}` as `kl (temperature 2)`."""
    if not isinstance(value, dict):
        return _setting(value)
    ((name, settings),) = value.items()
    return f"{name} ({', '.join(f'{key} {_setting(v)}' for key, v in settings.items())})"


def _setting(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {v}" for key, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
