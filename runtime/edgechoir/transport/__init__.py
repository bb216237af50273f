"""The link between members: topics, links over MQTT and in memory, blobs in chunks.

Nothing is imported here: `transport.mqtt` loads paho and ssl, and only who connects pays for it.
"""
