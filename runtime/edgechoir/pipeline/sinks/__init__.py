"""Where answers go, one kind a file."""
