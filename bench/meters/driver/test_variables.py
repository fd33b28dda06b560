import pytest

from bench.meters.driver.variables import MEMORY, stand_in_memory


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, None),
        ("", None),
        ("80GiB", "80 GiB"),
        ("80GiB,80GiB", "80 GiB, 80 GiB"),
        ("1.5 GiB, 512MiB", "1.5 GiB, 512 MiB"),
        ("123456", "123456"),
    ],
)
def test_the_memory_of_every_device_is_told(
    monkeypatch: pytest.MonkeyPatch, given: str | None, told: str | None
) -> None:
    monkeypatch.delenv(MEMORY, raising=False)
    if given is not None:
        monkeypatch.setenv(MEMORY, given)
    assert stand_in_memory() == told
