"""`python -m suites.field`: how far the planner agrees with the field, in one line."""

from suites.field import read_cases, summary

print(summary(read_cases()))
