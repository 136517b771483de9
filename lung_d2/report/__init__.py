"""What is handed to people: pictures and files."""
