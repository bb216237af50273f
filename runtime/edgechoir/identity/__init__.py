"""Who speaks: the fleet's certificates, member keys, signed envelopes and protection from replay.

Pure: time and entropy are arguments, and nothing here reads a file or a socket.
"""
