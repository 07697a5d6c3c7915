"""What the commands do, for Python users too: one module a command, without a terminal."""
