"""The core that ARCHITECTURE.md lists stays one that is read in an hour."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
LINK = re.compile(r"\]\(([^)#:]+?)(?:#[^)]*)?\)")


def core():
    """The files of the reading order; examples of single methods are none of it."""
    table = PAGE[PAGE.index("| read |") : PAGE.index("What stands around it")]
    files = [ROOT / path for path in LINK.findall(table)]
    return [file for file in files if file.name not in ("rigl.py", "gmp.py")]


def test_the_reading_order_is_as_long_as_it_says():
    files = core()
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    told = re.search(r"The core is (\w+) files, of ([\d,]+) lines", PAGE)
    assert (told[1], len(files)) == ("thirteen", 13)
    assert abs(sum(lengths.values()) - int(told[2].replace(",", ""))) < 100
    assert sum(lengths.values()) < 3_700
    assert max(n for file, n in lengths.items() if file.name != "schedules.py") < 500


def test_it_is_the_order_of_imports():
    """Nothing in it imports what is read later."""
    names = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in core()
    ]
    for i, file in enumerate(core()):
        text = file.read_text(encoding="utf-8")
        text = re.sub(r"^if TYPE_CHECKING:\n(?: .*\n)+", "", text, flags=re.M)
        imported = set(re.findall(r"^from (\S+) import", text, flags=re.M))
        assert not imported & set(names[i + 1 :]), file


def test_what_it_names_exists():
    for path in LINK.findall(PAGE):
        assert (ROOT / path).exists(), path
