"""Records, tables and verdicts of the studies whose results are in docs/evidence.md.

    layerstill study studies/mappings.yaml --data GLUE --ood-data OOD --output runs/mappings --teachers runs/teachers
    python -m benchmarks.claims keep runs/mappings     # what the verdicts need, into benchmarks/results
    python -m benchmarks.claims show mappings          # tables and verdicts in Markdown

Differences are paired by seed. Intervals are 95 %, over seeds and dev examples where both sides have the same examples,
else over seeds. A comparison supports its claim if the interval excludes 0 in its direction, no task contradicts, and p
after Holm, over the comparisons of that claim, is below 0.05; it does not if the interval excludes 0 the other way with
such a p, or lies within half a point of 0; else it is inconclusive. A comparison that two claims need is in both
families. `not C16` says that the best ILD is better than KD.
"""

import argparse
from pathlib import Path

from benchmarks.claims import STUDIES
from benchmarks.claims.records import Records, keep


def main() -> None:
    """Keep or show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("keep", help="write the records of a finished study").add_argument("folder", type=Path)
    verbs.add_parser("show", help="print tables and verdicts").add_argument("study", choices=list(STUDIES))
    args = parser.parse_args()
    if args.verb == "keep":
        print(keep(args.folder))
    else:
        print(STUDIES[args.study].show(Records.read(args.study)))


if __name__ == "__main__":
    main()
