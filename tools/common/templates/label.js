// Merge, split and leave out identities. The state is the identity of each image; a change is a
// list of images with their old and new identities, so that it can be undone.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const LEFT_OUT = -1, GROUPS_PER_PAGE = 40, FEW_IMAGES = 48;
const byId = id => document.getElementById(id);
const owner = data.images.map(image => image.label);
const order = [...data.order];
const chosenGroups = new Set(), chosenImages = new Set(), expanded = new Set(), changes = [];
let nextGroup = order.length, page = 0, isSaved = true, lastImage = LEFT_OUT;
byId("share").value = Math.round(100 * data.testShare);

function members() {
  const found = new Map();
  owner.forEach((group, image) => {
    if (!found.has(group)) found.set(group, []);
    found.get(group).push(image);
  });
  return found;
}
function shownGroups(found) {
  const groups = order.filter(group => found.has(group));
  return found.has(LEFT_OUT) ? [...groups, LEFT_OUT] : groups;
}
const nameOf = group => group === LEFT_OUT ? "Left out" : `Identity ${group + 1}`;
const mean = numbers => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
function createTile(image) {
  const { path, camera, confidence, image: source } = data.images[image];
  const name = path.slice(path.lastIndexOf("/") + 1);
  const tile = element("button", { type: "button", className: "tile", title: path });
  tile.dataset.image = image;
  tile.setAttribute("aria-pressed", chosenImages.has(image));
  tile.append(source ? element("img", { src: source, alt: name }) : element("span", { className: "name", textContent: name }));
  tile.append(element("span", { textContent: camera || name }), element("span", { textContent: confidence.toFixed(2) }));
  tile.addEventListener("click", event => event.shiftKey ? chooseRange(image) : toggle(chosenImages, image));
  return tile;
}
function createGroup(group, images) {
  const section = element("section", { className: chosenGroups.has(group) ? "group chosen" : "group" });
  section.dataset.group = group;
  const box = element("input", { type: "checkbox", checked: chosenGroups.has(group), disabled: group === LEFT_OUT });
  box.addEventListener("change", () => toggle(chosenGroups, group));
  const cameras = new Set(images.map(image => data.images[image].camera));
  const facts = [`${images.length} image${images.length > 1 ? "s" : ""}`];
  if (data.hasCameras) facts.push(`${cameras.size} camera${cameras.size > 1 ? "s" : ""}`);
  if (group !== LEFT_OUT) facts.push(`confidence ${mean(images.map(image => data.images[image].confidence)).toFixed(2)}`);
  const header = element("header", {}, element("label", {}, box, ` ${nameOf(group)}`), element("small", { textContent: facts.join(", ") }));
  const near = data.next[group];
  if (near && near.identity >= 0 && owner.includes(near.identity)) {
    const text = `select with ${nameOf(near.identity)} (similarity ${near.similarity.toFixed(2)})`;
    const button = element("button", { type: "button", className: "near", textContent: text });
    button.addEventListener("click", () => chooseNear(group));
    header.append(button);
  }
  const few = expanded.has(group) ? images : images.slice(0, FEW_IMAGES);
  const tiles = element("div", { className: "tiles" }, ...few.map(createTile));
  if (few.length < images.length) {
    const more = element("button", { type: "button", className: "more", textContent: `show all ${images.length}` });
    more.addEventListener("click", () => { expanded.add(group); render(); });
    tiles.append(more);
  }
  section.append(header, tiles);
  return section;
}

// Keep the focus: on the image, or on the identity, or on the one that takes its place.
function focusedPlace() {
  const section = document.activeElement.closest(".group");
  return { section, group: section && Number(section.dataset.group), image: document.activeElement.dataset.image,
           position: section ? [...document.querySelectorAll(".group")].indexOf(section) : -1 };
}
function restoreFocus({ section, group, image, position }) {
  if (!section) return;
  const all = [...document.querySelectorAll(".group")];
  const tile = image !== undefined && document.querySelector(`.tile[data-image="${image}"]`);
  const same = all.find(one => Number(one.dataset.group) === group) || all[Math.min(position, all.length - 1)];
  const target = tile || (same && same.querySelector("input:enabled, .tile"));
  if (target) target.focus({ preventScroll: true });
}
function render(message) {
  const place = focusedPlace(), found = members(), groups = shownGroups(found);
  const pages = Math.max(1, Math.ceil(groups.length / GROUPS_PER_PAGE));
  page = Math.min(page, pages - 1);
  const few = groups.slice(page * GROUPS_PER_PAGE, (page + 1) * GROUPS_PER_PAGE);
  byId("groups").replaceChildren(...few.map(group => createGroup(group, found.get(group))));
  byId("page").textContent = `page ${page + 1} of ${pages}`;
  byId("previous").disabled = page === 0;
  byId("next").disabled = page === pages - 1;
  byId("undo").disabled = changes.length === 0;
  const out = (found.get(LEFT_OUT) || []).length, chosen = chosenGroups.size + chosenImages.size;
  byId("merge").disabled = !canMerge();
  byId("split").disabled = chosenImages.size === 0;
  byId("reject").disabled = chosen === 0;
  const counts = `${groups.filter(group => group !== LEFT_OUT).length} identities, ${owner.length - out} images, ${out} left out`;
  const selection = chosen ? `; selected: ${chosenGroups.size} identities, ${chosenImages.size} images` : "";
  byId("status").textContent = (message ? `${message} ` : "") + counts + selection;
  restoreFocus(place);
}

function toggle(set, value) {
  if (!set.delete(value)) set.add(value);
  if (set === chosenImages) lastImage = value;
  render();
}
// From the image that was clicked last to this one, if both are in one identity.
function chooseRange(image) {
  const [first, last] = [Math.min(lastImage, image), Math.max(lastImage, image)];
  const isOne = first >= 0 && owner[first] === owner[last];
  for (let one = isOne ? first : image; one <= (isOne ? last : image); one++)
    if (owner[one] === owner[image]) chosenImages.add(one);
  lastImage = image;
  render();
}
function selectNothing() {
  chosenGroups.clear();
  chosenImages.clear();
  render();
}
function chooseNear(group) {
  chosenGroups.add(group).add(data.next[group].identity);
  render();
}
// The images of the selected identities, and the selected images.
function chosen() {
  return owner.flatMap((group, image) => chosenGroups.has(group) || chosenImages.has(image) ? [image] : []);
}
const canMerge = () => chosenGroups.size > 1 || (chosenGroups.size === 1 && [...chosenImages].some(image => !chosenGroups.has(owner[image])));

function change(images, group, message) {
  const moved = images.filter(image => owner[image] !== group).map(image => [image, owner[image], group]);
  if (!moved.length) return;
  for (const [image, , to] of moved) owner[image] = to;
  changes.push(moved);
  chosenGroups.clear();
  chosenImages.clear();
  isSaved = false;
  render(message);
}
function merge() {
  if (!canMerge()) return;
  const first = order.find(group => chosenGroups.has(group));
  change(chosen(), first, `Merged into ${nameOf(first)}.`);
}
function split() {
  if (!chosenImages.size) return;
  const images = owner.flatMap((_, image) => chosenImages.has(image) ? [image] : []);
  const source = order.indexOf(owner[images[0]]), group = nextGroup++;
  order.splice(source < 0 ? order.length : source + 1, 0, group);
  change(images, group, `${nameOf(group)} is new.`);
}
function reject() {
  const { group, image } = focusedPlace();
  if (!chosenGroups.size && !chosenImages.size) {
    if (image !== undefined) chosenImages.add(Number(image));
    else if (group !== null && group !== LEFT_OUT) chosenGroups.add(group);
  }
  const images = chosen().filter(one => owner[one] !== LEFT_OUT);
  change(images, LEFT_OUT, `${images.length} image${images.length > 1 ? "s" : ""} left out.`);
}
function undo() {
  const moved = changes.pop();
  if (!moved) return;
  for (const [image, from] of moved) owner[image] = from;
  isSaved = false;
  render("Undone.");
}

// Test identities are spread evenly over those that can be tested: seen by two cameras, or, without
// cameras, in two images. One image per camera is a query, the others are the gallery.
function splits(found) {
  const several = data.hasCameras && new Set(data.images.map(image => image.camera)).size > 1;
  const byCamera = images => {
    const cameras = new Map();
    for (const image of images) {
      const camera = data.hasCameras ? data.images[image].camera : "";
      cameras.set(camera, [...(cameras.get(camera) || []), image]);
    }
    return cameras;
  };
  const groups = [...found.keys()].filter(group => group !== LEFT_OUT).sort((a, b) => a - b);
  const eligible = groups.filter(group => several ? byCamera(found.get(group)).size > 1 : found.get(group).length > 1);
  const share = Math.min(100, Math.max(0, Number(byId("share").value) || 0)) / 100;
  const count = share > 0 && eligible.length ? Math.max(1, Math.round(share * eligible.length)) : 0;
  const result = owner.map(() => "train");
  for (let place = 0; place < count; place++) {
    const images = found.get(eligible[Math.floor((2 * place + 1) * eligible.length / (2 * count))]);
    for (const image of images) result[image] = "gallery";
    const cameras = [...byCamera(images).values()];
    const large = cameras.filter(one => one.length > 1);
    for (const one of large.length ? large : [cameras[0]]) result[one[Math.floor(one.length / 2)]] = "query";
  }
  return result;
}
const quote = text => /[",\n\r]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
function csvText() {
  const found = members(), split = splits(found), lines = [["path", "pid", ...(data.hasCameras ? ["camid"] : []), "split"]];
  for (const group of [...found.keys()].filter(one => one !== LEFT_OUT).sort((a, b) => a - b))
    for (const image of found.get(group)) {
      const { path, camera } = data.images[image];
      lines.push([path, String(group + 1), ...(data.hasCameras ? [camera] : []), split[image]]);
    }
  return lines.map(line => line.map(quote).join(",") + "\n").join("");
}
function save() {
  const url = URL.createObjectURL(new Blob([csvText()], { type: "text/csv" }));
  element("a", { href: url, download: "labels.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
  isSaved = true;
  render("Saved labels.csv.");
}

function turn(step) {
  page += step;
  render();
  scrollTo(0, 0);
}
function moveFocus(key) {
  const sections = [...document.querySelectorAll(".group")], section = document.activeElement.closest(".group");
  if (key === "ArrowUp" || key === "ArrowDown") {
    const place = section ? sections.indexOf(section) + (key === "ArrowDown" ? 1 : -1) : 0;
    const target = sections[place] && sections[place].querySelector("input:enabled, .tile");
    if (target) target.focus();
    return;
  }
  const items = section ? [...section.querySelectorAll("input:enabled, .tile")] : [];
  const target = items[items.indexOf(document.activeElement) + (key === "ArrowRight" ? 1 : -1)];
  if (target) target.focus();
}
const KEYS = { m: merge, s: split, x: reject, u: undo, Escape: selectNothing,
  n: () => { const { group } = focusedPlace(); if (group !== null && data.next[group] && data.next[group].identity >= 0) chooseNear(group); } };
document.addEventListener("keydown", event => {
  if (event.target.id === "share" || event.altKey) return;
  if (event.ctrlKey || event.metaKey) {
    const action = { z: undo, s: save }[event.key];
    if (action) { event.preventDefault(); action(); }
    return;
  }
  if (event.key.startsWith("Arrow")) {
    event.preventDefault();
    moveFocus(event.key);
  } else if (KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
  }
});
for (const [id, action] of Object.entries({ merge, split, reject, undo, save })) byId(id).addEventListener("click", action);
byId("previous").addEventListener("click", () => turn(-1));
byId("next").addEventListener("click", () => turn(1));
addEventListener("beforeunload", event => { if (!isSaved) event.preventDefault(); });
render();
