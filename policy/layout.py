"""How a query's features are laid out: [embedding | structure | hashed caller features | 1]."""

from __future__ import annotations

FEATURE_VERSION = "wordllama256-structure16-hashed32-v1"
STRUCTURE_NAMES = (
    "length",
    "words",
    "digits",
    "mathematical_signs",
    "code_signs",
    "other_scripts",
    "line_breaks",
    "several_lines",
    "question_mark",
    "question_at_end",
    "answer_choices",
    "capitals",
    "word_length",
    "code_words",
    "asks_for_answer",
    "commas",
)
"""What the values of the structure are, in their order."""

STRUCTURE = len(STRUCTURE_NAMES)
HASHED = 32
