"""Annotations over slices as pictures: folders of masks, and what drawing tools export."""
