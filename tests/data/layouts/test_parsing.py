import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_lab.data.images import DataError
from fer_lab.data.layouts.parsing import (
    entries,
    first_folder,
    lines_of,
    pictures,
    rows_of,
    safe_name,
    some,
    unlisted,
    unseen,
    whole_number,
)


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("7", 7), ("3.0", 3), ("3.", 3), ("007", 7)])
def test_whole_numbers(text, value):
    assert whole_number(text, 0, 7, "x") == value


@pytest.mark.parametrize("text", ["", "8", "-1", "3.5", "1_0", "nan", "inf", "1e0", "٣", "3 ", "9" * 400])
def test_what_is_no_whole_number_is_named(text):
    with pytest.raises(DataError, match=r"list\.txt, line 4: expected a whole number from 0 to 7, got"):
        whole_number(text, 0, 7, "list.txt, line 4")


@given(st.text(max_size=12))
def test_any_text_is_a_number_in_range_or_an_error(text):
    try:
        value = whole_number(text, 1, 7, "x")
    except DataError:
        value = 1
    assert value in range(1, 8)


@pytest.mark.parametrize(
    ("text", "name"),
    [("a.png", "a.png"), ("a\\b.png", "a/b.png"), ("./a b/ü.png", "a b/ü.png"), ("..a", "..a")],
)
def test_names_below_the_folder(text, name):
    assert safe_name(text, "x") == name


@pytest.mark.parametrize(
    "text", ["", ".", "/etc/passwd", "../a.png", "a/../../b", "a\\..\\b", "C:\\a.png", "\\\\host\\a", "a\0b"]
)
def test_names_that_leave_the_folder_are_refused(text):
    with pytest.raises(DataError, match="x: expected a file name below the data set's folder"):
        safe_name(text, "x")


@given(st.text(max_size=20))
def test_no_accepted_name_leaves_the_folder(tmp_path_factory, text):
    try:
        name = safe_name(text, "x")
    except DataError:
        return
    root = tmp_path_factory.getbasetemp()
    assert root in (root / name).parents
    assert ".." not in name.split("/")


def test_byte_order_mark_carriage_returns_and_blank_lines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfa ,"b,c"\r\n\r\n , \r\nd,e\r\n')
    assert list(rows_of(path)) == [(1, ["a", "b,c"]), (4, ["d", "e"])]
    path.write_bytes(b"\xef\xbb\xbf a 1 \r\n\r\nb 2")
    assert list(lines_of(path)) == [(1, "a 1"), (3, "b 2")]


@pytest.mark.parametrize("read", [rows_of, lines_of])
def test_what_is_no_text_is_named(tmp_path, read):
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,\xff\xfe\n")
    with pytest.raises(DataError, match=r"a\.csv is not UTF-8 text"):
        list(read(path))
    with pytest.raises(DataError, match=r"missing\.csv cannot be read: No such file"):
        list(read(tmp_path / "missing.csv"))
    with pytest.raises(DataError, match="is not a regular file"):
        list(read(tmp_path))


@pytest.mark.parametrize("text", ['a,"b\n', 'a,"b"c\n', "a," + "x" * 200_000])
def test_what_is_no_csv_is_named_with_its_line(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_text("ok,1\n" + text)
    with pytest.raises(DataError, match=r"a\.csv, line 2(: not valid CSV| is longer than 65,536)"):
        list(rows_of(path))


@given(st.binary(max_size=60))
def test_any_bytes_are_rows_or_an_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(data)
    for read in (rows_of, lines_of):
        try:
            found = list(read(path))
        except DataError:
            found = []
        assert all(line >= 1 and content for line, content in found)


def test_a_name_listed_twice_is_an_error():
    seen = set()
    assert unseen("a", seen, "x") == "a"
    with pytest.raises(DataError, match="x: a is listed a second time"):
        unseen("a", seen, "x")


def test_folders_are_listed_without_hidden_files_and_loops(tmp_path):
    for name in ("b.PNG", "a.jpeg", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "inner.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    assert entries(tmp_path) == (["inner.png"], ["a.jpeg", "b.PNG", "loop.png", "notes.txt"])
    assert pictures(tmp_path) == (["a.jpeg", "b.PNG", "loop.png"], 1)
    with pytest.raises(DataError, match="cannot be listed"):
        entries(tmp_path / "none")


def test_pictures_without_a_label_are_noted(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(b"x")
    (note,) = unlisted(tmp_path, {"0.png"}, "label.csv")
    assert note.endswith(
        "4 pictures in " + tmp_path.name + " are not in label.csv: 1.png, 2.png, 3.png and 1 more"
    )
    assert unlisted(tmp_path, {f"{i}.png" for i in range(5)}, "label.csv") == []


def test_some_counts_the_rest():
    assert some(["a", "b"]) == "a, b"
    assert some([str(i) for i in range(1200)], 2) == "0, 1 and 1,198 more"


def test_first_folder(tmp_path):
    (tmp_path / "data" / "b").mkdir(parents=True)
    assert first_folder(tmp_path, ("", "data"), ("a", "b")) == tmp_path / "data"
    assert first_folder(tmp_path, ("", "data"), ("c",)) is None
