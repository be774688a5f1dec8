"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const last = data.widths.length - 1;
const vertices = new Map();
for (const shape of document.querySelectorAll(".vertex")) vertices.set(shape.dataset.vertex, shape);
const slider = document.getElementById("step"), where = document.getElementById("where");
const details = document.getElementById("details"), steps = document.getElementById("steps");
let now = last, pinned = null, timer = null;

// Elements are made, never written as markup: labels are whatever the user's data has in it.
function made(tag, text, parent) {
  const node = document.createElement(tag);
  if (text !== null) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

function drawSteps() {
  const widest = Math.max(...data.widths), space = "http://www.w3.org/2000/svg";
  steps.setAttribute("viewBox", `0 0 ${data.widths.length} 1`);
  steps.setAttribute("preserveAspectRatio", "none");
  data.widths.forEach((width, step) => {
    const bar = document.createElementNS(space, "rect");
    const height = Math.max(width / widest, 0.04);
    for (const [name, value] of Object.entries({ x: step + 0.05, y: 1 - height, width: 0.9, height })) bar.setAttribute(name, value);
    const title = document.createElementNS(space, "title");
    title.textContent = `step ${step}: ${width} vertices`;
    bar.append(title);
    bar.addEventListener("click", () => go(step));
    steps.append(bar);
  });
}

function go(step) {
  now = Math.min(Math.max(step, 0), last);
  slider.value = now;
  where.textContent = `step ${now} of 0 – ${last}: ${data.widths[now]} ${data.widths[now] === 1 ? "vertex" : "vertices"} (policy ${data.policy})`;
  for (const [number, shape] of vertices) {
    const of = data.vertices[number].step;
    shape.classList.toggle("waiting", of > now);
    shape.classList.toggle("now", of === now);
  }
  [...steps.children].forEach((bar, at) => bar.setAttribute("class", at === now ? "now" : at < now ? "done" : ""));
}

function show(number) {
  const vertex = data.vertices[number];
  for (const shape of vertices.values()) shape.classList.remove("chosen", "child");
  vertices.get(number).classList.add("chosen");
  details.replaceChildren();
  made("h2", `vertex ${number}` + (vertex.label !== number ? `: ${vertex.label}` : ""), details);
  const list = made("dl", null, details);
  const line = (name, value) => (made("dt", name, list), made("dd", value, list));
  line("graph", vertex.graph + (vertex.root ? ", a root of it" : ""));
  if (vertex.kind !== null) line("kind", vertex.kind);
  line("step", vertex.step);
  line("row", vertex.row);
  const children = line("children", vertex.children.length || vertex.hidden ? "" : "none");
  vertex.children.forEach(([slot, child], at) => {
    vertices.get(String(child)).classList.add("child");
    if (at) children.append(", ");
    const link = made("a", `${child} (slot ${slot})`, children);
    link.addEventListener("click", () => { pinned = String(child); show(pinned); });
  });
  if (vertex.hidden) children.append(` and ${vertex.hidden} not shown`);
  for (const [name, values] of Object.entries(vertex.pushed)) {
    const cell = line(`pushed ${name}`, "");
    made("div", data.about[name], cell);
    made("code", values.join("  "), cell);
  }
}

function play() {
  if (timer !== null) { clearInterval(timer); timer = null; return; }
  if (now === last) go(0);
  timer = setInterval(() => { go(now + 1); if (now === last) play(); }, 600);
}

for (const [number, shape] of vertices) {
  shape.addEventListener("mouseenter", () => show(number));
  shape.addEventListener("mouseleave", () => { if (pinned !== null) show(pinned); });
  shape.addEventListener("focus", () => show(number));
  shape.addEventListener("click", () => { pinned = pinned === number ? null : number; show(number); });
}
slider.max = last;
slider.addEventListener("input", () => go(Number(slider.value)));
document.getElementById("back").addEventListener("click", () => go(now - 1));
document.getElementById("forth").addEventListener("click", () => go(now + 1));
document.getElementById("play").addEventListener("click", play);
document.addEventListener("keydown", (event) => {
  if (event.target === slider) return;
  if (event.key === "ArrowRight") go(now + 1);
  if (event.key === "ArrowLeft") go(now - 1);
});
drawSteps();
go(last);
