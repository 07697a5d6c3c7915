"""What finished and unfinished runs say, read from their directories without torch."""
