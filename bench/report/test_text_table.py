from bench.report.text_table import wrapped


def test_lines_are_broken_at_blanks_and_what_is_to_be_copied_is_not() -> None:
    copied = "    pytest bench --model a --strategies streamed"
    lines = ["Use streamed for small on one-device.", "  more memory: streamed takes 4 GiB", copied, "", "end"]
    assert wrapped(lines, 20) == [
        "Use streamed for",
        "small on one-device.",
        "  more memory:",
        "    streamed takes 4",
        "    GiB",
        copied,
        "",
        "end",
    ]
    assert wrapped(lines, 80) == lines
