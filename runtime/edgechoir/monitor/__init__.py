"""What a federation shows of itself: JSON documents, and a terminal view made from them alone.

Nothing is imported here: `monitor.terminal` loads rich, and only where a terminal is drawn.
"""
