"""Lesions that are drawn while training: a canvas, what is drawn on it, and the augmentation that does so."""
