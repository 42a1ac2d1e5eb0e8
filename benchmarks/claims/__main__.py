"""Records, tables and verdicts of the studies whose results are in docs/evidence.md.

    layerstill study studies/mappings.yaml --data GLUE --ood-data OOD --output runs/mappings --teachers runs/teachers
    python -m benchmarks.claims keep runs/mappings     # what the verdicts need, into benchmarks/results
    python -m benchmarks.claims show mappings          # tables and verdicts in Markdown
    python -m benchmarks.claims holm                   # all comparisons of all claims in one family
    python -m benchmarks.claims noise                  # what withdrawn rules, and those in their place, say of noise

All verdicts are a pilot's, of 240 to 300 updates. Differences are paired by seed, and by dev example where both sides
have the same examples. Rules are those of layerstill.evaluation.rules, by which reports are written, too: a claim is
supported if its interval lies where it says, no task contradicts, and p after Holm, over everything that the study's
page asks, is below 0.05; not supported if the same holds of the contrary; else undecided. The margin is half a point:
C15 says that arms are equal within it, C16 that none is higher by it (non-inferiority of KD), C17 that the objectives'
differences depend on the initialisation (an F test of the interaction). `holm` says what is left if the pages of all
studies are one family.
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
    verbs.add_parser("holm", help="adjust the questions of all claims together")
    verbs.add_parser("noise", help="try the withdrawn rules on noise, and those in their place")
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
