"""What a variant costs, measured on demand: `tox -e cpu -- suites/benchmarks`."""
