"""How the page looks: on light and dark screens, narrow ones, and on paper, where all that is folded is unfolded."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --ink: #1b1f24; --quiet: #57606a; --line: #d0d7de; --panel: #f6f8fa;
  --good: #1a7f37; --bad: #b3261e; --doubt: #7d2fa8; --person: #8a5a00; --credential: #0b57b0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171b; --ink: #e6e9ed; --quiet: #9aa4af; --line: #39414a; --panel: #1c2127;
    --good: #56c271; --bad: #ff8a80; --doubt: #d8a1f2; --person: #e8b45a; --credential: #7fb4f5;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body {
  margin: 0 auto; padding: 1.5rem; max-width: 72rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif;
}
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; overflow-wrap: anywhere; }
a { color: var(--credential); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; margin: 1rem 0 0; list-style: none; }
.verdict { border-left: .35rem solid var(--good); background: var(--panel); padding: .75rem 1rem; margin: 1rem 0; }
.verdict strong { color: var(--good); }
.warning { border-left: .35rem solid var(--person); background: var(--panel); padding: .75rem 1rem; margin: 1rem 0; }
.quiet { color: var(--quiet); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: .75rem 0; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
.frame { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; color: var(--quiet); padding-bottom: .35rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
td, tbody th { overflow-wrap: anywhere; }
td ul { margin: 0; padding-left: 1.1rem; }
.story th { font-weight: 400; color: var(--quiet); white-space: nowrap; width: 7rem; }
.good { color: var(--good); } .bad { color: var(--bad); } .doubt { color: var(--doubt); }
.person { color: var(--person); } .credential { color: var(--credential); } .run { font-weight: 600; }
details { margin: .25rem 0; }
summary { cursor: pointer; }
pre, code { font: .85rem/1.45 ui-monospace, monospace; }
pre {
  background: var(--panel); border: 1px solid var(--line); padding: .75rem; margin: .5rem 0;
  white-space: pre-wrap; overflow-wrap: anywhere; tab-size: 4;
}
code { overflow-wrap: anywhere; }
footer { margin-top: 2.5rem; padding-top: .75rem; border-top: 1px solid var(--line); color: var(--quiet); }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
@media print {
  :root {
    --ground: #ffffff; --ink: #000000; --quiet: #444444; --line: #999999; --panel: #ffffff;
    --good: #000000; --bad: #000000; --doubt: #000000; --person: #000000; --credential: #000000;
  }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  .frame { overflow: visible; }
  tr, h2, h3 { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  thead { display: table-header-group; }
  details::details-content { content-visibility: visible; display: block; height: auto; }
}
"""
