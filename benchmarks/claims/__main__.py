"""Records, tables and verdicts of the studies whose results are in docs/evidence.md.

    layerstill study studies/mappings.yaml --data GLUE --ood-data OOD --output runs/mappings --teachers runs/teachers
    python -m benchmarks.claims keep runs/mappings     # what the verdicts need, into benchmarks/results
    python -m benchmarks.claims show mappings          # tables and verdicts in Markdown
    python -m benchmarks.claims holm                   # all comparisons of all claims in one family
    python -m benchmarks.claims noise                  # what the withdrawn rules say of noise

All verdicts are a pilot's, of 240 to 300 updates. Differences are paired by seed. Intervals are 95 %, over seeds and
dev examples where both sides have the same examples, else over seeds. A comparison supports its claim if the interval
excludes 0 in its direction, no task contradicts, and p after Holm, over the comparisons of that claim, is below 0.05;
it does not if the interval excludes 0 the other way with such a p, or lies within half a point of 0; else it is
inconclusive. A comparison that two claims need is in both families. So a verdict in a table is one as if its claim
were the only one; `holm` says what is left if it is not. C16 and C17 get no verdict: the rules that they were judged
by say "supported" of noise.
"""

import argparse
from pathlib import Path

from benchmarks.claims import STUDIES, family, noise
from benchmarks.claims.records import Records, keep


def main() -> None:
    """Keep, show, adjust or try."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("keep", help="write the records of a finished study").add_argument("folder", type=Path)
    verbs.add_parser("show", help="print tables and verdicts").add_argument("study", choices=list(STUDIES))
    verbs.add_parser("holm", help="adjust the comparisons of all claims together")
    verbs.add_parser("noise", help="try the withdrawn rules on noise")
    args = parser.parse_args()
    if args.verb == "keep":
        print(keep(args.folder))
    elif args.verb == "holm":
        print(family.show(family.one_family(family.kept().values())))
    elif args.verb == "noise":
        print(noise.show())
    else:
        print(STUDIES[args.study].show(Records.read(args.study)))


if __name__ == "__main__":
    main()
