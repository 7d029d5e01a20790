"""Number formats: bits, spacing and fates against torch."""

from __future__ import annotations

import math

import pytest
import torch

from labkit.measure.formats import FORMATS, format_table


@pytest.fixture(params=FORMATS.values(), ids=FORMATS)
def form(request):
    return request.param


def test_bits_give_what_torch_says(form):
    info = torch.finfo(form.dtype)
    assert 1 + form.exponent_bits + form.fraction_bits == info.bits
    assert (form.largest, form.smallest_normal) == (info.max, info.tiny)
    assert form.smallest == torch.tensor(0.0, dtype=form.dtype).nextafter(
        torch.tensor(1.0, dtype=form.dtype)
    )
    assert form.spacing(1.0) == info.eps


@pytest.mark.parametrize("power", [*range(-24, 16), -130, 100])
def test_spacing_is_the_way_to_the_next_number(form, power):
    value = 1.5 * 2.0**power if power > -24 else 2.0**power
    if form.fate(value) in ("zero", "infinite"):
        return
    stored = torch.tensor(form.store(value), dtype=form.dtype)
    following = stored.nextafter(torch.tensor(math.inf, dtype=form.dtype))
    if power > form.lowest - form.fraction_bits:
        assert form.spacing(value) == following.double().item() - stored.double().item()
    assert form.spacing(-value) == form.spacing(value)


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e39])
def test_no_spacing_beyond_the_range(form, value):
    with pytest.raises(ValueError, match="range"):
        form.spacing(value)


def test_fates_at_the_borders(form):
    """Half the smallest number is rounded to zero (a tie goes to even), a bit more is kept."""
    half = form.smallest / 2
    assert form.fate(half) == form.fate(-half) == "zero"
    assert form.fate(half * 1.01) == form.fate(form.smallest) == "subnormal"
    assert form.fate(form.smallest_normal) == form.fate(form.largest) == "normal"
    assert form.fate(form.largest * 2) == "infinite"


def test_the_table_has_a_row_for_each_format():
    table = format_table()
    assert [row[0] for row in table.rows] == list(FORMATS)
    assert dict(zip(table.headers, table.rows[2], strict=True))["largest"] == "6.55e+04"
