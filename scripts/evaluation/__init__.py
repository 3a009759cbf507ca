"""The benchmark of evaluations: what a log can tell of candidates, against what is known to be true."""
