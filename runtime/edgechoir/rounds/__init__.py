"""The round protocol as two state machines without I/O.

`Participant` is a tier's end towards its parent, `Aggregator` its end towards its children. Each is
a frozen state and a function `step(state, event, now, entropy) -> (state, effects)`. `events` lists
what may happen to them and what they may ask for; `epoch` is the set-up that both sides share.
"""
