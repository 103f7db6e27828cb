"""Two threads at most, so that tests run side by side do not fight over the processors."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
