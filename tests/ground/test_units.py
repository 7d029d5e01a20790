"""Numbers have the digits that count, in the unit that fits."""

from __future__ import annotations

import pytest

from labkit import units


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (4.2e-8, "42 ns"),
        (3e-12, "0.003 ns"),
        (1.234e-5, "12.3 µs"),
        (9.99e-4, "999 µs"),
        (9.9999e-4, "1 ms"),  # not 1000 µs
        (0.0123, "12.3 ms"),
        (0.99999, "1 s"),
        (-0.002, "-2 ms"),
        (90, "90 s"),
        (119.96, "2 min"),
        (5_000, "83.3 min"),
        (86_400, "24 h"),
        (1e9, "11574 days"),
    ],
)
def test_times(seconds, text):
    assert units.duration(seconds) == text


def test_few_digits_never_bring_an_exponent():
    shown = [units.duration(seconds, digits=2) for seconds in (9.96, 99.4, 99.6, 110)]
    assert shown == ["10 s", "99 s", "100 s", "110 s"]


@pytest.mark.parametrize(
    ("bytes_", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1e3, "1 kB"),
        (1e6, "1 MB"),
        (999_999, "1 MB"),
        (16.44e9, "16.4 GB"),
        (2.9e12, "2.9 TB"),
        (-4e6, "-4 MB"),
    ],
)
def test_sizes(bytes_, text):
    assert units.size(bytes_) == text


@pytest.mark.parametrize(
    ("bytes_", "text"), [(1000, "1000 bytes"), (10 * 2**20, "10 MiB"), (3 * 2**29, "1.5 GiB")]
)
def test_sizes_in_powers_of_two(bytes_, text):
    assert units.size(bytes_, binary=True) == text


def test_fewer_digits():
    assert units.duration(34.2, digits=2) == "34 s"
    assert units.size(1_234_567, digits=2) == "1.2 MB"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-4.7e-15, "0"),
        (0.0000123456, "1.23e-05"),
        (0.00123, "0.00123"),
        (0.01, "0.0100"),
        (1.004, "1.00"),
        (9.994, "9.99"),
        (9.996, "10.0"),
        (-45.67, "-45.7"),
        (99.94, "99.9"),
        (99.96, "100"),
        (1234.5, "1234"),
        (float("inf"), "inf"),
    ],
)
def test_three_digits_count(value, text):
    assert units.digits(value) == text


@pytest.mark.parametrize(
    ("value", "places"), [(0, 2), (1234, 0), (99.96, 0), (9.996, 1), (0.05, 4)]
)
def test_decimals_of_an_interval_are_those_of_its_value(value, places):
    assert units.decimals(value) == places
