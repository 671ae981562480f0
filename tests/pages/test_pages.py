"""A page is whole whatever its data holds."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from graftlab.pages.html import embedded, esc, shell

HOSTILE = '</script><!--<script>alert("x")</script> & \u2028 \ud83d ${a} \\u003c'


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_embedded_data_is_read_back_and_holds_no_markup(data: object) -> None:
    text = embedded("data", data)
    inside = re.fullmatch(r'<script type="application/json" id="data">(.*)</script>', text)
    assert inside is not None
    assert not set("<>&\u2028\u2029") & set(inside[1])
    assert json.loads(inside[1]) == data


def test_what_would_end_the_element_does_not() -> None:
    text = embedded("data", {"said": HOSTILE})
    assert text.count("</script") == 1
    assert "<!--" not in text
    assert json.loads(text.split(">", 1)[1].removesuffix("</script>")) == {"said": HOSTILE}


def test_the_shell_needs_nothing_else() -> None:
    page = shell("A & B", f"<p>{esc(HOSTILE)}</p>", style=".own {}", scripts=["one()", "two()"])
    assert page.startswith("<!DOCTYPE html>")
    assert "<title>A &amp; B</title>" in page
    assert page.index(".own {}") < page.index("</style>") < page.index("<body>")
    assert page.index("one()") < page.index("two()") < page.index("</body>")
    assert not re.search(r"\b(src|href)=", page)
