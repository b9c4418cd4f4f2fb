"""What clients of a federation send, and what a server sees of it, for images, rows and sentences."""
