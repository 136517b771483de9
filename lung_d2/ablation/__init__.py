"""Measured ablations: arms trained alike but for one change, on folds and seeds, and a table of what each brought."""
