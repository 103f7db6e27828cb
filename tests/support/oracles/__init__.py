"""Methods of 2024 to 2026 in float64, pair by pair from their formulas, and slips that golden numbers must show.

A file is named like the golden file that it explains and has two names for the tests. `outputs(case, slip)` gives
every output of a golden case, by its name there; `WRONG` lists the slips, each a wrong variant of the formulas.
"""
