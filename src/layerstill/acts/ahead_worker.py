"""A process that does errands of `acts.ahead`: `python -m layerstill.acts.ahead_worker`."""

from typing import Any

from layerstill.acts.worker import serve


def main() -> None:
    """Serve until standard input ends."""

    def load() -> Any:
        import traceback

        from layerstill.acts.ahead import Errand
        from layerstill.acts.study import quieten

        quieten()

        def answer(told: dict[str, Any]) -> dict[str, Any]:
            try:
                Errand(**told).do()
            except Exception:  # whoever asked tries it again, and meets it there
                traceback.print_exc()
            return {}

        return answer

    serve(load)


if __name__ == "__main__":
    main()
