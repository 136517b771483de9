"""New lesions drawn into each training slice, in HU and in grey levels alike, and what looks like lesions."""
