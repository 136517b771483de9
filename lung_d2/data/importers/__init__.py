"""One importer for each kind of source; each finds :class:`lung_d2.data.dataset.Case` objects."""
