#!/usr/bin/env python3
"""Keeps two rules of style that can be counted, and fails if one is broken.

The first line of a doc comment says what the item is; at most 2 % may begin with a word such as What or Whether. README.md has
at most 150 lines.
"""
import pathlib
import re
import sys

FIRST_WORDS = {"what", "how", "whether", "who", "where", "so", "of", "when", "which", "why", "for"}
MAX_SHARE = 0.02
MAX_README_LINES = 150

sources = sorted(path for path in pathlib.Path(".").rglob("*.rs") if "target" not in path.parts)
summaries = 0
bad = []
for source in sources:
    is_inside = False
    for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
        comment = re.match(r"\s*//[/!] ?(.*)", line)
        if comment and comment.group(1) and not is_inside:
            summaries += 1
            word = re.match(r"[A-Za-z]*", comment.group(1)).group(0).lower()
            if word in FIRST_WORDS:
                bad.append(f"{source}:{number}: {comment.group(1)}")
        is_inside = bool(comment)
readme = len(pathlib.Path("README.md").read_text(encoding="utf-8").splitlines())

share = len(bad) / max(summaries, 1)
print(f"{len(bad)} of {summaries} first lines of doc comments begin with a word such as What ({share:.1%}); README.md: {readme} lines")
failures = bad if share > MAX_SHARE else []
if readme > MAX_README_LINES:
    failures.append(f"README.md: {readme} lines, at most {MAX_README_LINES}")
for failure in failures:
    print(failure)
sys.exit(bool(failures))
