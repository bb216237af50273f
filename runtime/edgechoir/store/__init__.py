"""What outlives a process, in SQLite files: samples, the round journal, model versions.

Every store is bounded and may be called from any thread, one call at a time: calls that commit
block for as long as the disk does, so an event loop makes them in a thread.
"""
