"""The benchmark of promotions: how soon a policy that turns bad is left, and how often a good one is."""
