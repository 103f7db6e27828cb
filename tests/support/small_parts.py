"""`lpe-eval` where a length of a few windows is long already: what launchers start in the tests of many processes."""

import sys

from lpe_eval.cli import main
from lpe_eval.measure import parts

WORK = 600
"""Of a part, instead of minutes on a large card."""

if __name__ == "__main__":
    parts.PART_WORK = WORK
    sys.argv[0] = "lpe-eval"
    main()
