"""The one render function neutralises whatever has power over a terminal."""

import pytest

from hub.cli import render
from hub.cli.render import clean


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ✓ äöü 日本", "plain ✓ äöü 日本"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x9b2J", "\\x9b2J"),
        ("\x1b]8;;http://evil\x07click\x1b]8;;\x07", "\\x1b]8;;http://evil\\x07click\\x1b]8;;\\x07"),
        ("a\rb", "a\\x0db"),
        ("a\x00b\x7f", "a\\x00b\\x7f"),
        ("abc\u202edef", "abc\\u202edef"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("\ud800", "\\ud800"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("tag\U000e0041", "tag\\ue0041"),
        ("one\ntwo\tthree", "one two three"),
        ("👩‍👩‍👧", "👩‍👩‍👧"),
        (None, ""),
        (7, "7"),
    ],
)
def test_text_becomes_one_harmless_line(text, shown):
    assert clean(text) == shown


def test_prose_keeps_its_lines_and_nothing_else():
    assert clean("a\r\nb\tc\x1b[2J", lines=True) == "a\nb\tc\\x1b[2J"


def test_every_control_and_format_character_is_escaped():
    dangerous = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F))]
    assert all(clean(char) == " " if char in "\n\t" else clean(char).startswith("\\") for char in dangerous)


def test_markup_emoji_names_and_links_are_only_text(capsys):
    render.say("[bold]x[/bold] [/] :smile: [link=http://evil]y[/link]")
    assert capsys.readouterr().out == "[bold]x[/bold] [/] :smile: [link=http://evil]y[/link]\n"


def test_a_table_off_the_terminal_is_tab_separated_whatever_the_cells_hold(capsys):
    render.table(("a", "b"), [("x\ty", "1\n2"), (None, 3)], empty="nothing")
    assert capsys.readouterr().out == "a\tb\nx y\t1 2\n\t3\n"


def test_a_table_on_a_terminal_shows_markup_as_text(capsys, monkeypatch):
    monkeypatch.setattr(render, "is_terminal", lambda: True)
    render.table(("a",), [("[red]x[/red]",)], empty="nothing")
    assert "[red]x[/red]" in capsys.readouterr().out


def test_an_empty_table_says_so_where_programs_do_not_read(capsys):
    render.table(("a",), [], empty="nothing here")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "nothing here\n")


def test_json_is_pure_ascii(capsys):
    render.document({"a": "\x9b\u202e\x1b"})
    assert capsys.readouterr().out == '{\n  "a": "\\u009b\\u202e\\u001b"\n}\n'
