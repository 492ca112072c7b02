"""Priors on the same transforms: the table."""

from __future__ import annotations

from pipelines.priors import Row, to_table


def test_each_prior_has_its_own_figures_and_is_held_against_the_first() -> None:
    rows = [Row("one", 0.5, 300, 4_000_000), Row("two", 0.4, 70, 25_640_000), Row("three", 0.55, 9, 60_000)]
    columns = {str(column.header): list(column.cells) for column in to_table(rows).columns}
    assert columns == {
        "prior": ["one", "two", "three"],
        "bits per pixel": ["0.5000", "0.4000", "0.5500"],
        "against the first": ["0.0 %", "−20.0 %", "+10.0 %"],
        "steps": ["300", "70", "9"],
        "million parameters": ["4.0", "25.6", "0.1"],
    }
