"""For all tests: an example's time is no property, and machines differ."""

from hypothesis import settings

settings.register_profile("edgechoir", deadline=None)
settings.load_profile("edgechoir")
