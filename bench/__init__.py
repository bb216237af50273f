"""What edgechoir costs, measured on this machine: `python -m bench`, or `python -m bench NAME`.

Each module beside this one has a function `measure` that gives figures. A timing stands beside a
reference taken in the same run, the two in turn, since a shared machine is never twice the same.
"""
