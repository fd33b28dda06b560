from bench.report.text_table import markdown_table, wrapped


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


def test_a_name_stays_in_its_cell_of_a_table_in_markdown() -> None:
    assert markdown_table([["size", "GPU"], ["a|b\nc", "1.00"]], {1}) == [
        "| size | GPU |",
        "| --- | ---: |",
        "| a\\|b\\nc | 1.00 |",
    ]
