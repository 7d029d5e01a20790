"""What is measured and not asserted: run by `make bench`, or `python -m benchmarks [name ...]`."""
