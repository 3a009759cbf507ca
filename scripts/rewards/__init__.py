"""The benchmark of rewards as they come: late, missing not at random, several for one decision."""
