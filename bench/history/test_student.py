import pytest

from bench.history.student import share_within, t_around


@pytest.mark.parametrize(
    ("share", "freedom", "tabled"),
    [
        (0.95, 1, 12.706),
        (0.95, 2, 4.303),
        (0.95, 3, 3.182),
        (0.95, 4, 2.776),
        (0.99, 4, 4.604),
        (0.999, 4, 8.610),
        (0.999, 5, 6.869),
        (0.999, 9, 4.781),
        (0.99, 30, 2.750),
    ],
)
def test_students_t_is_that_of_the_tables(share: float, freedom: int, tabled: float) -> None:
    assert t_around(share, freedom) == pytest.approx(tabled, rel=2e-4)
    assert share_within(tabled, freedom) == pytest.approx(share, abs=1e-4)
