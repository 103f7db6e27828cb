"""Reading what other programs write: their configs, their names of weights, their pickles."""
