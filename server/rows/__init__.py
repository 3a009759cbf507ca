"""Files of logged decisions, one a row with what came of it: `pointsman evaluate` and `import` read the same."""
