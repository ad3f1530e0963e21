#!/usr/bin/env python3
"""Keeps the rules of style that can be counted, and fails if one is broken.

- The first line of a doc comment says what the item is; at most 2 % may begin with a word such as What or Whether.
- No line of Rust is longer than 120 columns, except for texts in quotation marks and rows of tables.
- `let (a, b) = (x, y);` is two bindings in one line, and is written as two.
- README.md has at most 150 lines.
"""
import pathlib
import re
import sys

FIRST_WORDS = {"what", "how", "whether", "who", "where", "so", "of", "when", "which", "why", "for"}
MAX_SHARE = 0.02
MAX_COLUMNS = 120
MAX_README_LINES = 150

COMMENT = re.compile(r"\s*//[/!] ?(.*)")
TUPLE_BINDING = re.compile(r"let \((mut )?\w+(, (mut )?\w+)+\) = \(")

sources = sorted(path for path in pathlib.Path(".").rglob("*.rs") if "target" not in path.parts)
failures = []
summaries = 0
bad_summaries = []
for source in sources:
    is_inside = False
    for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
        place = f"{source}:{number}"
        comment = COMMENT.match(line)
        if comment and comment.group(1) and not is_inside:
            summaries += 1
            word = re.match(r"[A-Za-z]*", comment.group(1)).group(0).lower()
            if word in FIRST_WORDS:
                bad_summaries.append(f"{place}: {comment.group(1)}")
        is_inside = bool(comment)
        is_table = comment is not None and comment.group(1).startswith("|")
        if len(line) > MAX_COLUMNS and '"' not in line and not is_table:
            failures.append(f"{place}: {len(line)} columns, at most {MAX_COLUMNS}")
        if TUPLE_BINDING.search(line):
            failures.append(f"{place}: two bindings in one line")
readme = len(pathlib.Path("README.md").read_text(encoding="utf-8").splitlines())
if readme > MAX_README_LINES:
    failures.append(f"README.md: {readme} lines, at most {MAX_README_LINES}")

share = len(bad_summaries) / max(summaries, 1)
print(f"{len(bad_summaries)} of {summaries} first lines of doc comments begin with a word such as What ({share:.1%}); README.md: {readme} lines")
if share > MAX_SHARE:
    failures += bad_summaries
for failure in failures:
    print(failure)
sys.exit(bool(failures))
