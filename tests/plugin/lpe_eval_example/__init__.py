"""A package of somebody else, found by lpe-eval through entry points."""
