// What a report does in a browser: charts follow their switches, tables are sorted, and everything opens for printing.
"use strict";

// A scale around some values, with room for a point at either end.
function scale(values, log, part, top) {
  const kind = { type: log ? "log" : "linear", nice: false };
  if (!log) kind.zero = false;
  const inside = log ? values.filter((value) => value > 0) : values;
  if (!inside.length) return { ...kind, domain: log ? [1, 10] : [0, 1] };
  const low = Math.min(...inside);
  const high = Math.max(low, Math.min(Math.max(...inside), top ?? Infinity));
  const cut = high === top;
  if (log) {
    const room = Math.max((high / low) ** part, 1.02);
    return { ...kind, domain: [low / room, cut ? high : high * room] };
  }
  const room = part * (high - low || Math.abs(high) || 1);
  return { ...kind, domain: [low - room, cut ? high : high + room] };
}

function chart(figure) {
  const { spec, lines, fields, points: values, marks, views } = JSON.parse(figure.querySelector("script").textContent);
  const points = values.map((each) => {
    const point = Object.fromEntries(fields.map((field, place) => [field, each[place]]));
    const at = point.x.toLocaleString("en-US", { maximumFractionDigits: 0 });
    return { ...point, ...lines[point.line], at };
  });
  const form = figure.querySelector("form");
  let drawn = null;
  let latest = 0;

  async function draw() {
    const asked = new FormData(form);
    const shown = new Set(asked.getAll("line").map(Number));
    const panel = Number(asked.get("panel"));
    const view = views[Number(asked.get("view"))];
    const log = view.log !== null && asked.get("scale") === "log";
    const own = points.filter(
      (point) =>
        shown.has(point.line) && point.panel === panel && views[point.view] === view && (!log || point.y > 0),
    );
    const next = structuredClone(spec);
    const least = Math.min(...own.map((point) => point.x));
    const beside = marks.map((mark) => ({ ...mark, first: mark.x <= least }));
    next.datasets = { points: own, marks: own.length ? beside.filter((mark) => mark.panel === panel) : [] };
    const { x, y } = next.layer[0].encoding;
    const places = [...own, ...next.datasets.marks].map((point) => point.x);
    const ends = own.flatMap((point) => [point.y, point.low ?? point.y, point.high ?? point.y]);
    x.scale = scale(places, x.scale.type === "log", 0.03, null);
    y.scale = scale(ends, log, 0.06, asked.get("cut") ? view.top : null);
    y.title = view.label;
    // Many bands on top of each other would hide the lines.
    next.layer[0].layer[0].mark.opacity = new Set(own.map((point) => point.line)).size > 6 ? 0.05 : 0.14;
    for (const box of form.querySelectorAll("[name=scale]")) box.disabled = view.log === null;
    const cut = form.querySelector(".cut");
    if (cut) cut.hidden = view.top === null;
    const number = ++latest;
    const made = await vegaEmbed(figure.querySelector(".plot"), next, {
      actions: false,
      ast: true,
      defaultStyle: false,
      mode: "vega-lite",
      renderer: "svg",
      tooltip: { disableDefaultStyle: true },
    });
    if (number < latest) return made.finalize();
    drawn?.finalize();
    drawn = made;
    figure.dataset.drawn = String(number);
  }

  form.addEventListener("change", draw);
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const button of form.querySelectorAll("[data-all]")) {
    button.addEventListener("click", () => {
      for (const box of form.querySelectorAll("[name=line]")) box.checked = Boolean(button.dataset.all);
      draw();
    });
  }
  draw();
}

// A number where a cell has one, else its text; what is empty or no number comes last among numbers.
function key(cell) {
  const text = cell.dataset.value ?? cell.textContent.trim();
  const value = Number(text);
  return text === "" || Number.isNaN(value) ? text : value;
}

function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  if (typeof one !== typeof other) return null;
  return one.localeCompare(other, undefined, { numeric: true });
}

function sort(table, head, place) {
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const each of table.querySelectorAll("th[aria-sort]")) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, key: key(row.cells[place]) }));
  rows.sort((one, other) => {
    const order = compare(one.key, other.key);
    return order === null ? (typeof one.key === "number" ? -1 : 1) : down ? -order : order;
  });
  body.append(...rows.map((each) => each.row));
}

for (const figure of document.querySelectorAll("figure.chart")) chart(figure);
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead tr:last-child th").forEach((head, place) => {
    head.querySelector("button")?.addEventListener("click", () => sort(table, head, place));
  });
}
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const each of closed) each.open = true;
});
addEventListener("afterprint", () => {
  for (const each of closed) each.open = false;
});
