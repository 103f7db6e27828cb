"""`python -m lpe_eval` is the same program as `lpe-eval`."""

from lpe_eval.cli import main

if __name__ == "__main__":
    main()
