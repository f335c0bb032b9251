"""The fixed parts of the report: its frame, style sheet and script. The policy in its head lets it fetch nothing."""

STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 0 auto; padding: 0 1rem 3rem; max-width: 76rem; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; margin: 1.6rem 0 .3rem; } h2 { font-size: 1.15rem; margin: 1.6rem 0 .4rem; }
h3 { font-size: 1rem; margin: 1.3rem 0 .3rem; } h4 { font-size: .92rem; margin: 1.1rem 0 .3rem; }
p { margin: .2rem 0 .5rem; opacity: .85; } article + article { border-top: 2px solid #8886; margin-top: 2rem; }
.trouble { border-left: 5px solid #c98a00; padding: .3rem .7rem; opacity: 1; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .87rem; }
th { white-space: nowrap; }
td, th { padding: .2rem .6rem; text-align: left; border-bottom: 1px solid #8884; font-variant-numeric: tabular-nums; }
.cameras td { text-align: right; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: 1rem; }
.chart { margin: .6rem 0; } .chart figcaption { font-weight: 600; font-size: .9rem; }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: currentColor; } .grid { stroke: #8885; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem .9rem; font-size: .8rem; }
.legend i { display: inline-block; width: .8rem; height: .8rem; margin-right: .3rem; border-radius: 2px; }
nav { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: .4rem; padding: .5rem 0;
      align-items: center; background: Canvas; border-bottom: 1px solid #8884; }
nav button, nav select, nav input { font: inherit; padding: .3rem .7rem; border: 1px solid #8888; border-radius: 1rem;
      background: Canvas; color: CanvasText; min-width: 0; max-width: 100%; }
nav button[aria-pressed=true] { background: #3a60be; color: #fff; border-color: #3a60be; }
.row { display: flex; gap: .5rem; overflow-x: auto; padding-bottom: .4rem; }
.row figure { margin: 0; flex: 0 0 auto; width: 6rem; font-size: .76rem; }
.row img { width: 100%; box-sizing: border-box; border: 4px solid #8886; border-radius: 4px; display: block;
           aspect-ratio: 1 / 2; object-fit: contain; background: #8882; }
.query img { border-color: #3a60be; } .query { margin-right: .7rem !important; }
.right img { border-color: #26a04c; } .wrong img { border-color: #d63430; border-style: dashed; }
details { margin: .5rem 0; } summary { cursor: pointer; }
pre { overflow-x: auto; background: #8882; padding: .6rem; border-radius: 4px; font-size: .8rem; }
[hidden] { display: none !important; }
"""

# The choice is kept in the address (#kind=worst,suspect&camera=2&words=...), so a filtered page can be passed on.
SCRIPT = """
"use strict";
const buttons = [...document.querySelectorAll("nav button")];
const lists = [...document.querySelectorAll("section.list")];
const runs = [...document.querySelectorAll("article[data-run]")];
const camera = document.getElementById("camera"), words = document.getElementById("words");
const chosen = group => buttons.filter(b => b.dataset.group === group && b.getAttribute("aria-pressed") === "true")
  .map(b => b.dataset.value);
function filter() {
  const kinds = chosen("kind"), names = chosen("run"), many = buttons.some(b => b.dataset.group === "run");
  const text = words ? words.value.trim().toLowerCase() : "", cam = camera ? camera.value : "";
  for (const run of runs) run.hidden = many && !names.includes(run.dataset.run);
  let shown = 0;
  for (const list of lists) {
    list.hidden = !kinds.includes(list.dataset.kind) || (cam !== "" && list.dataset.camera !== cam)
      || !list.dataset.words.includes(text);
    if (!list.hidden && !list.closest("article").hidden) shown++;
  }
  const output = document.getElementById("shown");
  if (output && lists.length) output.textContent = `${shown} of ${lists.length} lists`;
}
function remember() {
  const state = new URLSearchParams();
  for (const group of ["kind", "run"]) {
    const all = buttons.filter(b => b.dataset.group === group);
    if (chosen(group).length < all.length) state.set(group, chosen(group).join(","));
  }
  if (camera && camera.value) state.set("camera", camera.value);
  if (words && words.value) state.set("words", words.value);
  history.replaceState(null, "", "#" + state);
  filter();
}
function restore() {
  const state = new URLSearchParams(location.hash.slice(1));
  for (const b of buttons) {
    const wanted = state.get(b.dataset.group);
    b.setAttribute("aria-pressed", String(wanted === null || wanted.split(",").includes(b.dataset.value)));
  }
  if (camera) camera.value = state.get("camera") || "";
  if (words) words.value = state.get("words") || "";
  filter();
}
for (const b of buttons) b.addEventListener("click", () => {
  b.setAttribute("aria-pressed", String(b.getAttribute("aria-pressed") !== "true"));
  remember();
});
for (const field of [camera, words]) if (field) field.addEventListener("input", remember);
window.addEventListener("hashchange", restore);
restore();
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{filters}
{sections}
<script>{script}</script>
</body>
</html>
"""
