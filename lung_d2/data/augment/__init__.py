"""Random changes of training slices that keep CT honest: values, geometry, and lesions copied from other slices."""
