"""The report of a run: one page of HTML with plots, from a cloud's history or a recording."""
