import pytest

from model.byte_sizes import binary_size, decimal_size, fine_size, gigabytes, megabytes, short_size

MIB, GIB = 2**20, 2**30


@pytest.mark.parametrize(
    ("count", "text"),
    [(4 * GIB, "4 GiB"), (4187593114, "3.9 GiB"), (512 * MIB, "512 MiB"), (0, "0 MiB"), (GIB - 1, "1024 MiB")],
)
def test_short_sizes_have_one_digit_at_most(count: int, text: str) -> None:
    assert short_size(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(96, "96 bytes"), (1024, "1 KiB"), (320 * 1024, "320 KiB"), (1536, "1.5 KiB"), (MIB, "1 MiB"), (GIB, "1 GiB")],
)
def test_fine_sizes_go_down_to_bytes(count: int, text: str) -> None:
    assert fine_size(count) == text


@pytest.mark.parametrize(
    ("count", "few", "text"),
    [(GIB, 1.0, "1.000 GiB"), (GIB - MIB, 1.0, "1023.000 MiB"), (GIB // 4, 0.1, "0.250 GiB"), (MIB, 0.1, "1.000 MiB")],
)
def test_binary_sizes_are_in_gib_from_few_on(count: int, few: float, text: str) -> None:
    assert binary_size(count, 3, few) == text


def test_decimal_sizes_are_in_powers_of_ten() -> None:
    assert [decimal_size(count) for count in (999_900_000, 10**9)] == ["999.9 MB", "1.0 GB"]
    assert [megabytes(count) for count in (50_000, 1_304_200_000)] == ["0.1 MB", "1,304.2 MB"]
    assert gigabytes(1_304_200_000_000) == "1304.2 GB"
