"""The page's style."""

from __future__ import annotations

STYLE = """
:root { --ink: #1b1b1b; --soft: #5c6370; --line: #dfe2e7; --back: #f6f7f9; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 25px; line-height: 1.25; margin: 0 0 14px; }
h2 { font-size: 17px; margin: 0 0 10px; }
section, header { background: #fff; border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 20px; margin: 0 0 16px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 16px; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; max-height: 7.5em; overflow: auto; }
dd.best { max-height: none; }
.bar { display: grid; grid-template-columns: minmax(70px, max-content) 180px max-content; gap: 10px;
  align-items: center; }
.bar i { display: block; height: 10px; border-radius: 3px; background: #d6604d; min-width: 1px; }
.bar b { font-weight: 600; }
.bar b, .chip, td, .words { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, monospace; }
.soft, .note { color: var(--soft); }
.legend { display: flex; gap: 10px; align-items: center; flex-wrap: wrap; font-size: 13px;
  color: var(--soft); margin: 10px 0 0; }
.legend i { width: 180px; height: 12px; border-radius: 3px; border: 1px solid var(--line); }
.words { line-height: 2.05; font-size: 14px; margin: 2px 0 8px; overflow-wrap: anywhere;
  max-height: 22em; overflow: auto; padding: 3px; }
.chip { padding: 3px 2px; margin: 0 1px; border-radius: 4px; white-space: pre; }
.pick .chip { cursor: pointer; }
.chip.on { outline: 2px solid #1b1b1b; outline-offset: 0; }
.controls { display: flex; gap: 14px; flex-wrap: wrap; align-items: center; margin: 0 0 12px; }
select, button { font: inherit; padding: 3px 8px; border: 1px solid var(--line); border-radius: 6px;
  background: #fff; color: inherit; }
button.on { border-color: #1b1b1b; box-shadow: inset 0 0 0 1px #1b1b1b; }
figure { margin: 0; }
figcaption { max-width: 460px; font-size: 13px; color: var(--soft); margin: 4px 0 0; }
.row { display: flex; gap: 22px; flex-wrap: wrap; align-items: flex-start; }
.scroll { overflow: auto; max-width: 100%; max-height: 760px; }
canvas { display: block; cursor: crosshair; }
img { display: block; max-width: 100%; }
.told { min-height: 1.5em; font-size: 13px; color: var(--soft); margin: 6px 0 0; }
table { border-collapse: separate; border-spacing: 2px; font-size: 13px; }
td, thead th { padding: 3px 6px; text-align: center; white-space: pre; border-radius: 3px; }
th { font-weight: 600; color: var(--soft); white-space: pre; text-align: right; padding-right: 8px;
  position: sticky; left: 0; background: #fff; }
thead th { color: var(--ink); font-family: ui-monospace, "DejaVu Sans Mono", Menlo, monospace; }
footer { color: var(--soft); font-size: 13px; }
"""
