// The selection is kept in the address (#kind=worst,suspect&camera=2&words=...), so that a
// filtered page can be shared.
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
