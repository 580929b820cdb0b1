const data = JSON.parse(document.getElementById("data").textContent);
const element = id => document.getElementById(id);
const labelled = data.rows.some(row => row.label !== null);
const PAGE = 120, BINS = 60; // cards per page, bars of the histogram
let threshold = data.threshold, pages = 1, listed = [], open = -1;

// Scores reach from about 0 to hundreds and the threshold lies near 0, so the axis is logarithmic above the lowest.
const lowest = Math.min(threshold, ...data.rows.map(row => row.score));
const highest = Math.max(threshold, ...data.rows.map(row => row.score));
const end = Math.log1p(highest - lowest) * 1.02 || 1;
const place = score => Math.log1p(score - lowest) / end;
const score = at => lowest + Math.expm1(at * end);
const short = value => Number(value.toPrecision(4)).toString();

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function tiles(row, tag) {
  const entries = Object.entries(row.pictures);
  const made = make(tag, { className: entries.length === 2 ? "tiles two" : "tiles" });
  for (const [caption, source] of entries) {
    const image = make("img", { src: source, alt: `${caption} of ${row.name}`, title: caption, loading: "lazy" });
    const frame = () => make("div", { className: "frame" }, image);
    made.append(tag === "span" ? image : make("figure", {}, frame(), make("figcaption", { textContent: caption })));
  }
  return made;
}

function describe(row) {
  const category = element("category") ? row.category : ""; // a single category is not shown
  return [verdict(row, threshold), category, row.kind, row.name].filter(Boolean).join(" · ");
}

const cards = new Map();
function card(row) {
  if (!cards.has(row)) {
    const about = make("span", { className: "about" });
    const made = make("button", { type: "button", className: "card", title: row.path }, tiles(row, "span"), about);
    made.addEventListener("click", () => show(listed.indexOf(row)));
    cards.set(row, made);
  }
  const made = cards.get(row);
  made.dataset.verdict = verdict(row, threshold);
  const note = Object.keys(row.pictures).length ? "" : " (no picture)";
  made.lastChild.replaceChildren(make("b", { textContent: row.score.toFixed(2) }), ` ${describe(row)}${note}`);
  return made;
}

function chosenRows() {
  const category = element("category")?.value;
  return category ? data.rows.filter(row => row.category === category) : data.rows;
}

function drawHistogram() {
  const of = { good: Array(BINS).fill(0), bad: Array(BINS).fill(0), unknown: Array(BINS).fill(0) };
  const rows = chosenRows();
  for (const row of rows) {
    const kind = row.label === null ? "unknown" : row.label ? "bad" : "good";
    of[kind][Math.min(BINS - 1, Math.floor(place(row.score) * BINS))] += 1;
  }
  const most = Math.max(1, ...Object.values(of).flat()), middle = labelled ? 50 : 100, width = 1000 / BINS;
  // Square roots, so that one image is visible beside a hundred.
  const bar = kind => (n, i) => {
    const height = Math.sqrt(n / most) * (middle - 4), y = kind === "bad" ? middle : middle - height;
    return n ? `<rect class="${kind}" x="${i * width + 1}" y="${y}" width="${width - 2}" height="${height}"/>` : "";
  };
  const line = (kind, x) => `<line class="${kind}" x1="${x}" x2="${x}" y1="0" y2="100"/>`;
  const bars = Object.entries(of).flatMap(([kind, own]) => own.map(bar(kind))).join("");
  const axis = labelled ? `<line class="middle" x1="0" x2="1000" y1="50" y2="50"/>` : "";
  element("histogram").innerHTML = bars + axis + line("start", place(data.threshold) * 1000) + line("now", 0);
  const text = labelled ? "histogram of the scores of good images and defects" : "histogram of the scores";
  element("histogram").setAttribute("aria-label", `${text}, ${rows.length} images, with the threshold`);
  const steps = [-3, -2, -1, 0, 1, 2, 3].flatMap(e => [1, 1.5, 2, 3, 4, 5, 6, 8].map(n => Number(`${n}e${e}`)));
  let last = -1;
  const ticks = [...steps.map(v => -v).reverse(), 0, ...steps].filter(v => {
    if (v < lowest || place(v) > 1 || place(v) - last < 0.06) return false;
    last = place(v);
    return true;
  });
  const labels = ticks.map(v => make("span", { textContent: String(v), style: `left: ${100 * place(v)}%` }));
  element("ticks").replaceChildren(...labels);
}

function showCounts() {
  const n = count(chosenRows(), threshold);
  const percent = value => value === null ? "undefined" : `${(100 * value).toFixed(1)} %`;
  const bad = n.found + n.miss, good = n["false alarm"] + n.passed;
  const items = labelled
    ? { "found defects": `${n.found} of ${bad}`, misses: n.miss, "false alarms": `${n["false alarm"]} of ${good}`,
        precision: percent(n.precision), recall: percent(n.recall), "false-alarm rate": percent(n.false_alarm_rate) }
    : { "called anomalous": `${n.flagged} of ${n.images}`, "called normal": n.passed };
  const item = ([name, value]) => make("li", {}, make("b", { textContent: value }), ` ${name}`);
  element("counts").replaceChildren(...Object.entries(items).map(item));
}

function refresh() {
  const options = { threshold, filter: element("filter").value, sort: element("sort").value };
  listed = choose(data.rows, { ...options, category: element("category")?.value, search: element("search").value });
  const visible = listed.slice(0, pages * PAGE);
  element("gallery").replaceChildren(...visible.map(card));
  element("shown").textContent = `${listed.length} shown`;
  element("more").hidden = visible.length === listed.length;
  element("more").textContent = `show more (${listed.length - visible.length})`;
  showCounts();
}

function move(value) {
  threshold = value;
  element("slider").value = place(Math.max(value, lowest));
  element("slider").setAttribute("aria-valuetext", short(value));
  const line = element("histogram").querySelector(".now"), x = Math.min(1, place(Math.max(value, lowest))) * 1000;
  line.setAttribute("x1", x);
  line.setAttribute("x2", x);
  element("moved").hidden = element("reset").disabled = element("carry").hidden = value === data.threshold;
  element("command").textContent = `${data.command} ${Number(value.toPrecision(6))}`;
  refresh();
}

function show(index) {
  if (index < 0 || index >= listed.length) return;
  open = index;
  const row = listed[index];
  element("large-title").textContent = `${row.score.toFixed(2)} ${describe(row)} (${index + 1} of ${listed.length})`;
  element("large-tiles").replaceChildren(tiles(row, "div"));
  applyLook();
  element("large-path").textContent = row.path;
  element("previous").disabled = index === 0;
  element("next").disabled = index === listed.length - 1;
  if (!element("large").open) element("large").showModal();
}

// How the large pictures are looked at: zoom, and the part that is seen, in percent; brightness in doublings.
const look = { zoom: 1, x: 50, y: 50, brightness: 0 };

function applyLook() {
  look.zoom = Math.min(32, Math.max(1, look.zoom));
  look.brightness = Math.min(2, Math.max(-2, look.brightness));
  for (const part of ["x", "y"]) look[part] = Math.min(100, Math.max(0, look[part]));
  for (const image of element("large-tiles").querySelectorAll("img")) {
    image.style.transform = `scale(${look.zoom})`;
    image.style.transformOrigin = `${look.x}% ${look.y}%`;
    image.style.filter = `brightness(${2 ** look.brightness})`;
  }
  element("zoom").textContent = look.zoom.toFixed(1);
  element("brightness").value = look.brightness;
}

function change(properties) {
  Object.assign(look, properties);
  applyLook();
}

element("large-tiles").addEventListener("wheel", event => {
  const frame = event.target.closest(".frame");
  if (!frame) return;
  event.preventDefault();
  const box = frame.getBoundingClientRect();
  const at = { x: 100 * (event.clientX - box.left) / box.width, y: 100 * (event.clientY - box.top) / box.height };
  change({ ...(look.zoom === 1 ? at : {}), zoom: look.zoom * (event.deltaY < 0 ? 1.25 : 0.8) });
}, { passive: false });
element("large-tiles").addEventListener("dragstart", event => event.preventDefault());
element("large-tiles").addEventListener("pointermove", event => {
  const frame = event.buttons & 1 && look.zoom > 1 && event.target.closest(".frame");
  if (!frame) return;
  const step = 100 / (look.zoom - 1);
  change({ x: look.x - step * event.movementX / frame.clientWidth, y: look.y - step * event.movementY / frame.clientHeight });
});
element("brightness").addEventListener("input", event => change({ brightness: Number(event.target.value) }));
element("plain").addEventListener("click", () => change({ zoom: 1, x: 50, y: 50, brightness: 0 }));

Object.assign(element("slider"), { min: 0, max: 1, step: 0.002 });
element("slider").addEventListener("input", event => {
  const value = score(Number(event.target.value));
  element("value").value = short(value);
  move(value);
});
element("value").addEventListener("input", event => {
  if (event.target.value !== "" && Number.isFinite(event.target.valueAsNumber)) move(event.target.valueAsNumber);
});
element("reset").addEventListener("click", () => {
  element("value").value = short(data.threshold);
  move(data.threshold);
});
for (const id of ["filter", "sort", "category", "search"]) {
  element(id)?.addEventListener("input", () => {
    pages = 1;
    if (id === "category") drawHistogram();
    move(threshold);
  });
}
element("more").addEventListener("click", () => {
  pages += 1;
  refresh();
});
element("previous").addEventListener("click", () => show(open - 1));
element("next").addEventListener("click", () => show(open + 1));
element("close").addEventListener("click", () => element("large").close());
element("large").addEventListener("click", event => { if (event.target === element("large")) element("large").close(); });
element("large").addEventListener("close", () => element("gallery").children[open]?.focus());
document.addEventListener("keydown", event => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (element("large").open && event.target.type !== "range") {
    const to = { Home: 0, End: listed.length - 1 }[event.key];
    if (to !== undefined) show(to);
    const looks = { "+": { zoom: look.zoom * 1.25 }, "-": { zoom: look.zoom * 0.8 }, 0: { zoom: 1, x: 50, y: 50 },
                    "[": { brightness: look.brightness - 0.25 }, "]": { brightness: look.brightness + 0.25 } };
    if (looks[event.key]) change(looks[event.key]);
  } else if (event.key === "/" && !["INPUT", "SELECT"].includes(event.target.tagName)) {
    event.preventDefault();
    element("search").focus();
  }
  if (!step || event.target.type === "range") return;
  if (element("large").open) show(open + step);
  else if (event.target.classList.contains("card")) {
    (step > 0 ? event.target.nextElementSibling : event.target.previousElementSibling)?.focus();
  }
});

element("value").value = short(data.threshold);
drawHistogram();
move(data.threshold);
