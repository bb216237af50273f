"""Differential privacy: noise that each member adds itself, and what it is worth.

`noise` draws it, `budget` says what a round of it costs, `clipping` bounds what one device may say.
No aggregator is trusted with any of it: the noise is in a member's vector before it is masked.
"""
