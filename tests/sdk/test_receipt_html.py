"""The HTML page: all that others wrote stays text, nothing is loaded, and people of all kinds can read it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import pytest

from pages import ATTRIBUTES, INSIDE, Reader
from receipts import ORIGIN, START, WITNESSES, digest, jcs, vkey
from stepgrant import receipt
from stepgrant._receipt_html_style import STYLE
from stories import Run, eventful
from yardstick import reference_seconds


def rendered(run: Run, *, policy: str | None = None, **options: Any) -> str:  # noqa: ANN401 - of `Book.logged`
    return receipt.as_html(receipt.verify(run.logged(**options), run.book.jwks, log_policy=policy))


ATTACKS: Final = (
    "<script>alert(1)</script>",
    "</td></table></main><img src=x onerror=alert(1)>",
    '"><a href="javascript:alert(1)">x</a>',
    "'--><!-- ]]> <svg/onload=alert(1)>",
    "</style></title></pre><base href=//evil.example><style>",
    "&lt;b&gt; &#60;script&#62; &amp;",
    "\u202egnp.exe\u2066 \x00\x1b[2J\u2028\u200b\ufeff",
)


def written(text: str) -> tuple[Run, dict[str, Any]]:
    """A receipt in which everything that somebody can choose is this text."""
    run = Run()
    files = {f"a/{text}.rego": f"package x\n{text}\t# {text}\n", "b.json": "{}"}
    revision = "1:" + digest(jcs([{"digest": digest(files[path].encode()), "path": path} for path in sorted(files)]))
    run.add(0, "run_opened", by=("workload", text),
            decision={**run.decision("allow", text), "policy_revision": revision},
            body={"run_key": text, "workload": text, "labels": {text: text}, "attestation": {"method": text}},
            agent={"name": text, "jkt": "j", "version": text})  # fmt: skip
    action = run.action(text, text, text, {text: text})
    run.prepared(1, text, action)
    run.add(2, "decision", step=text, attempt=1, action=action, body={"phase": text, "engine": text},
            decision={**run.decision(text, text), "policy_revision": revision, "decision_id": text})  # fmt: skip
    asked = {
        "binding_c": None,
        "issuer": text,
        "groups": [text],
        "quorum": 1,
        "answer_by": START + 9,
        "why_again": text,
    }
    run.add(3, "approval_requested", step=text, attempt=1, approval={"id": text}, body=asked)
    run.add(4, "approval_decided", step=text, by=("person", text), approval={"id": text},
            body={"verdict": text, "settled": "approved", "operator": text,
                  "note_c": run.book.commit("approval.note", text)})  # fmt: skip
    run.add(5, "grant_issued", step=text, attempt=1, action=action, approval={"id": text},
            grant={"jti": text, "issuer": text, "exp": START},
            body={"audience": text, "redeem": "required", "revocation": "confirmed", "labels": [text], "meters": {},
                  "issued_at": START, "params": {text: text}, "jkt": "j", "intent": False})  # fmt: skip
    run.redeemed(6, text, text)
    run.add(7, "grant_revoked", step=text, attempt=1, grant={"jti": text, "issuer": text, "exp": START}, cause=text,
            body={"unused": False, "confirmed": False})  # fmt: skip
    run.add(8, "grant_failed", step="other", attempt=1, grant={"jti": "g2"}, body={"detail": text})
    run.completed(9, text, {text: [text]})
    run.add(10, text, step=text, attempt=1, body={text: text, "mind_c": run.book.commit("x.mind", text)})
    run.add(11, "run_erased", by=("person", text), cause=text)
    return run, {"policies": [{"revision": revision, "files": files}]}


@pytest.mark.parametrize("text", ATTACKS, ids=count())
def test_what_others_wrote_is_text_and_makes_no_element(text: str) -> None:
    """The page of a hostile run has, element by element, the structure of a harmless one's."""
    pages = []
    for chosen in ("harmless", text):
        run, members = written(chosen)
        pages.append(rendered(run, change=lambda value, members=members: value.update(members)))
    harmless, hostile = map(Reader, pages)
    assert hostile.seen == harmless.seen
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    assert sum(shown in one for one in hostile.text) >= 40
    assert all(c.isprintable() or c in "\n\t" for c in pages[1])


@pytest.mark.parametrize("text", ATTACKS, ids=count())
def test_a_strict_parser_agrees(text: str) -> None:
    run, members = written(text)
    page = rendered(run, change=lambda value: value.update(members))
    elements = [element.tag for element in ET.fromstring(page.removeprefix("<!DOCTYPE html>\n")).iter()]  # noqa: S314
    assert elements == [tag for tag in Reader(page).tags if tag != "#text"]


# -------------------------------------------------------------------------------------------- one page, well made

PAGES: Final = ("whole", "step", "grant", "open", "empty", "erased", "hidden", "v1")


def page_of(name: str) -> str:
    run = eventful()
    match name:
        case "step":
            return rendered(run, scope=("step", "charge"))
        case "grant":
            return rendered(run, scope=("grant", "grn_2"))
        case "open" | "empty":
            run = Run()
            run.opened()
            if name == "open":
                run.add(9, "step_in_doubt", step="s", attempt=1, cause="fenced", body={"since": 1})
            return rendered(run)
        case "erased":
            run.add(90_000, "run_erased", by=("person", None), body={})
            return rendered(run, change=lambda v: v.update(disclosures=[], complete=True))
        case "hidden":
            return rendered(run, change=lambda v: v.update(disclosures=[]))
        case "v1":
            return receipt.as_html(receipt.verify(run.receipt(), run.book.jwks))
        case _:
            return rendered(run)


@pytest.mark.parametrize("name", PAGES)
def test_it_is_well_made(name: str) -> None:
    page = page_of(name)
    read = Reader(page)
    assert page.startswith('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8" />')
    assert not read.open
    assert [(parent, tag) for parent, tag, _ in read.seen if parent and tag not in INSIDE[parent]] == []
    assert {attribute for _, _, attrs in read.seen for attribute in attrs} <= ATTRIBUTES
    ids = read.values("id")
    assert len(ids) == len(set(ids))
    assert {one.removeprefix("#") for one in read.values("href")} | set(read.values("aria-labelledby")) <= set(ids)
    assert all(one.startswith("#") for one in read.values("href"))
    for tag in ("h1", "main", "nav", "header", "footer"):
        assert read.tags.count(tag) == 1, tag
    headers = [attrs for _, tag, attrs in read.seen if tag == "th"]
    assert all(attrs.get("scope") in {"col", "row"} for attrs in headers)
    assert read.tags.count("caption") == read.tags.count("thead")
    levels = [int(tag[1]) for tag in read.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("name", PAGES)
def test_it_asks_for_nothing(name: str) -> None:
    page = page_of(name)
    policy = "default-src &#x27;none&#x27;; style-src &#x27;unsafe-inline&#x27;".replace("&#x27;", "'")
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy};' in page
    assert page.index("Content-Security-Policy") < page.index("<style>")
    assert set(Reader(page).tags).isdisjoint({"script", "link", "img", "iframe", "object", "embed", "form", "base"})
    assert re.search(r"url\(|@import|@font-face|src=", page) is None


def test_each_detail_has_its_summary_first() -> None:
    read = Reader(page_of("whole"))
    starts = [number for number, (_, tag, _) in enumerate(read.seen) if tag == "details"]
    assert len(starts) > 30
    assert {read.seen[number + 1][1] for number in starts} == {"summary"}


def test_it_is_made_with_the_base_install_alone() -> None:
    """Whoever checks receipts needs no library for terminals, and no broker."""
    code = (
        "import sys, stepgrant._receipt_html\n"
        "found = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(found & {'typer', 'rich', 'click', 'stepgrant_broker'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "[]\n"


# ------------------------------------------------------------------------------------------------- what it says


def words(page: str) -> str:
    return " ".join(Reader(page).text)


def test_the_verdict_comes_first_and_the_limits_last() -> None:
    run = eventful()
    trust = f"log {vkey(ORIGIN, 1, run.book.key)}\nwitness alice {vkey('alice', 4, WITNESSES['alice'])}\nquorum alice"
    said = words(rendered(run, policy=trust, cosigned=("alice",)))
    order = [
        "The receipt holds:", "30 entries of run_01, none changed, moved or missing.", "the run has ended",
        "by the key head-key", "cosigned by alice at 2027-01-15T08:00:01Z", "Is anything missing?",
        "Each step, from its entries alone.",
        "revoked at 2027-01-15T08:00:03Z: its holder went silent; its issuer confirmed",
        "Times count from", "Each decision of policy, in order.", "Each question to people.",
        "The life of each credential.", "Its text is not in this receipt.", "Path to the root",
        *receipt.DOES_NOT_PROVE, "is not signed",
    ]  # fmt: skip
    places = [said.index(one) for one in order]
    assert places == sorted(places)
    assert said.count("Ada Lovelace (opr_1) approved it at 2027-01-15T08:01:05Z, saying looks right") == 2
    assert receipt.verify(run.logged(cosigned=("alice",)), run.book.jwks).digest in said


def test_without_witnesses_it_says_that_none_were_asked_for() -> None:
    assert "No witness was asked for" in words(page_of("whole"))
    assert "It has no proof that the log holds its entries" in words(page_of("v1"))


def test_what_is_hidden_and_what_is_erased_is_told_apart() -> None:
    hidden, erased = words(page_of("hidden")), words(page_of("erased"))
    assert ("not disclosed" in hidden, "were erased" in hidden) == (True, False)
    assert ("not disclosed" in erased, "The values of this run were erased at" in erased) == (False, True)
    assert "(arguments  erased)" in erased.replace("( ", "(") or "(arguments erased)" in erased


def test_a_part_says_that_it_is_one_and_claims_no_state_of_the_run() -> None:
    said = words(page_of("step"))
    assert "Receipt of step charge in run run_01" in said
    assert "what else the run did is not in it" in said
    assert "in all," in words(page_of("whole"))
    assert "in all," not in said
    assert ("State" in words(page_of("whole")), "State" in said) == (True, False)


def test_the_policys_text_is_on_the_page() -> None:
    run, members = written("harmless")
    said = words(rendered(run, change=lambda value: value.update(members)))
    assert "package x\nharmless\t# harmless" in said
    assert "This text has the digest that the decisions name." in said


def test_a_warning_about_the_keys_stands_in_the_verdict() -> None:
    run = eventful()
    page = receipt.as_html(receipt.verify(run.logged(), run.book.jwks), keys_from="They came from <b>.")
    assert '<p class="warning">They came from &lt;b&gt;.</p>' in page


# ------------------------------------------------------------------------------------------------------- looks, size


def colours(block: str) -> dict[str, tuple[int, ...]]:
    found = re.findall(r"--(\w+): #(\w{2})(\w{2})(\w{2});", block)
    return {name: tuple(int(part, 16) for part in rgb) for name, *rgb in found}


def luminance(rgb: tuple[int, ...]) -> float:
    parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def schemes() -> Iterator[dict[str, tuple[int, ...]]]:
    yield from filter(None, (colours(block) for block in re.findall(r":root \{[^}]*\}", STYLE)))


def test_every_colour_can_be_read_on_light_dark_and_paper() -> None:
    """WCAG 2 AA: a contrast of 4.5 for text."""
    known = list(schemes())
    assert len(known) == 3
    for scheme in known:
        for name in scheme.keys() - {"ground", "panel", "line"}:
            for ground in ("ground", "panel"):
                dark, light = sorted((luminance(scheme[name]), luminance(scheme[ground])))
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, ground)


def long_run(entries: int) -> Run:
    run = Run()
    run.opened()
    at = 0
    for number in range((entries - 2) // 6):
        step, jti, at = f"s{number}", f"grn_{number}", 10 * number
        action = run.action("card.charge", f"card/{number}", "once", {"invoice": f"inv_{number}", "amount": number})
        run.prepared(at, step, action)
        run.decided(at, step, action, "allow", "tool_listed")
        run.issued(at, step, action, jti)
        run.redeemed(at + 1, step, jti)
        run.completed(at + 2, step, {"number": number})
        run.over(at + 3, step, jti, "completed")
    run.ended(at + 4)
    return run


SHOWN: Final = """
import pathlib, sys, yardstick
from stepgrant import receipt
data, keys = (pathlib.Path(name).read_bytes() for name in sys.argv[1:])
yardstick.report(lambda: receipt.as_html(receipt.verify(data, keys)))
"""


def test_a_thousand_entries_are_verified_and_shown_in_a_second(tmp_path: Path) -> None:
    run = long_run(1000)
    data, keys = jcs(run.logged()), jcs(run.book.jwks)
    told = receipt.verify(data, keys)
    assert len(told.events) > 990
    assert 500_000 < len(receipt.as_html(told).encode()) < 6_000_000
    names = (tmp_path / "receipt", tmp_path / "keys")
    for name, held in zip(names, (data, keys), strict=True):
        name.write_bytes(held)
    assert reference_seconds(SHOWN, *map(str, names), below=1) < 1
