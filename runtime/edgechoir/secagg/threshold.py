"""How many must agree before anything is opened.

A member's vector is bare to whoever has both its self-mask seed b and its leaf key K. Each honest
member answers one survivor set a turn, and for one member gives either a share of b or of K. With n
in the roster, of whom c collude and may give both, the shares of both kinds together number at most
(n - c) + 2c = n + c; for t of each, 2t <= n + c would be needed. So t is the smallest with
2t > n + c (Bonawitz et al. 2017, theorem 6.5 has t > 2n/3 for c = n/3, the same bound).
"""

from typing import Final

NO_COLLUSION: Final = 0


def colluders(n: int, one_in: int) -> int:
    """c: how many of n members may collude with the aggregator; `one_in` 4 means a quarter."""
    return n // one_in if one_in else 0


def threshold(n: int, c: int) -> int:
    """t: the answers that are needed, and enough, to open a sum of a roster of n."""
    return (n + c) // 2 + 1
