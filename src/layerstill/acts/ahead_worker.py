"""A process that does errands of `acts.ahead`: `python -m layerstill.acts.ahead_worker`."""

from typing import Any

from layerstill.acts.worker import Answer, serve


def main() -> None:
    """Serve until standard input ends."""
    serve(_load)


def _load() -> Answer:
    import logging
    import traceback

    from layerstill.acts.ahead import SAID, Errand
    from layerstill.acts.study import quieten

    quieten()
    notes, log = logging.StreamHandler(), logging.getLogger("layerstill")
    notes.setFormatter(logging.Formatter(f"{SAID}%(levelno)d %(message)s"))
    log.addHandler(notes)
    log.propagate = False

    def answer(told: dict[str, Any]) -> dict[str, Any]:
        try:
            Errand(**told).do()
        except Exception as error:  # whoever asked tries it again, and meets it there
            traceback.print_exc()
            return {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        return {"error": None}

    return answer


if __name__ == "__main__":
    main()
