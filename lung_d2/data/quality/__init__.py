"""What a prepared data set holds, and what looks wrong in it, on one page."""
