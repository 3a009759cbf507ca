"""The reference pages, generated from what they are a reference of."""
