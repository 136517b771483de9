"""What every page and picture shares: marks, sheets, charts and the HTML base."""
