"""Write `generated.jsonl`."""

from suites.corpus.compose import FILE, text

FILE.write_text(text(), encoding="utf-8")
