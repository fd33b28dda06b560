"""Names that wrappers or a prefix have changed, and names that only look like that."""

import pytest

from model.user.renaming import changes, renamed

EXPECTED = {"embed.weight", "blocks.0.weight", "blocks.1.weight"}


def of(names: list[str], expected: set[str] = EXPECTED) -> dict[str, str]:
    return renamed({name: name for name in names}, expected)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("module.{}", "{}"),
        ("_orig_mod.module.{}", "{}"),
        ("{}", "module.{}"),
        ("_orig_mod.{}", "module.{}"),
        ("model.{}", "{}"),
        ("{}", "transformer.{}"),
        ("model.encoder.{}", "{}"),
        ("{}", "blocks.{}"),
        ("model._fsdp_wrapped_module.{}", "_orig_mod.{}"),
    ],
)
def test_what_stands_before_all_names_is_found(before: str, after: str) -> None:
    wanted = {before.format(name): after.format(name) for name in EXPECTED}
    assert of(list(wanted), set(wanted.values())) == wanted


def test_wrappers_are_found_anywhere_in_names_of_both_sides() -> None:
    names = ["embed.weight", "blocks.0._orig_mod.weight", "blocks.1._checkpoint_wrapped_module._orig_mod.weight"]
    assert set(of(names).values()) == EXPECTED
    wrapped = {"embed.module.weight", "blocks.0.weight", "blocks._fsdp_wrapped_module.1.weight"}
    assert set(of(names, wrapped).values()) == wrapped


def test_a_model_that_calls_a_module_so_itself_is_left_alone() -> None:
    expected = {"a.weight", "a.module.weight"}
    assert of(["a.weight", "a.module.weight"], expected) == {name: name for name in expected}
    assert of(["module.a.weight", "module.a.module.weight"], expected) == {f"module.{name}": name for name in expected}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        # Two names would become one.
        (["m.a", "m.b", "a"], {"a", "b"}),
        (["a.module.w", "a.w"], {"a.w", "b.w"}),
        (["b", "c", "norm", "t.norm"], {"t.b", "t.c", "t.norm", "norm"}),
        # Of another model, layers of which happen to have the same names.
        (["1.0.weight", "0.0.weight"], {"0.weight", "1.weight"}),
        (["x.weight", "y.weight", "z.a"], {"a", "b", "c"}),
    ],
)
def test_what_is_not_clear_stays_as_it_is(names: list[str], expected: set[str]) -> None:
    assert of(names, expected) == {name: name for name in names}


def test_what_most_names_have_is_taken_from_them_all() -> None:
    names = ["t.a", "t.b", "t.c", "head"]
    assert of(names, {"a", "b", "c"}) == {"t.a": "a", "t.b": "b", "t.c": "c", "head": "head"}
    assert of(["a", "b", "c", "head"], {"t.a", "t.b", "t.c", "head"}) == {
        **{name: f"t.{name}" for name in "abc"},
        "head": "head",
    }


def test_a_change_is_told_once_for_all_names() -> None:
    names = {"module.a.w": "t.a.w", "module.b.w": "t.b.w", "c": "c"}
    assert changes(names) == ["names without 'module.'", "names with 't.'"]
    many = {f"{letter}.w": "w" for letter in "abcde"}
    assert changes(many) == ["names without 'a.', 'b.', 'c.' and 2 more"]
    assert changes({"a": "a"}) == []
