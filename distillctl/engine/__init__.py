"""The one loop that trains every method, and what it is made of. It never sees TOML, names no method and prints nothing."""
