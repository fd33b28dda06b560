import pytest

from model.user.hub_name import HubName


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hub:Qwen/Qwen3-8B", HubName("Qwen", "Qwen3-8B")),
        ("hub:a/b_c.d@refs/pr/5", HubName("a", "b_c.d", "refs/pr/5")),
        ("hub:a/b@0123abc", HubName("a", "b", "0123abc")),
        ("my-llama", None),
        ("hub.py:make", None),
    ],
)
def test_a_name_is_parsed(text: str, name: HubName | None) -> None:
    assert HubName.of(text) == name
    assert name is None or str(name) == text


@pytest.mark.parametrize(
    "text",
    [
        *("hub:", "hub:gpt2", "hub:a/", "hub:/b", "hub:a/b/c", "hub:a/b@", "hub:a/b@x y", "hub:a/..", "hub:../b"),
        *("hub:a/b--c", "hub:a/-b", "hub:a/b.", "hub:a/b.git", f"hub:a/{'b' * 100}", "hub:a/b\n", "hub:ä/b"),
        f"hub:a/{'-b' * 100}!",
    ],
)
def test_a_malformed_name_is_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'hub:[^\n]*is not the name of a model on the hub; write hub:ORG"):
        HubName.of(text)


def test_without_a_plan_it_is_said_how_to_download() -> None:
    name = HubName("a", "b", "v1")
    name.require_plan(planned=True)
    with pytest.raises(ValueError, match=r"^hub:a/b@v1 .*; add --plan, or run hf download a/b --revision v1 --loc"):
        name.require_plan(planned=False)
