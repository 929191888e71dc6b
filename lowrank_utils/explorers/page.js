// What every explorer shares: looks, slider, numbers, the chart of scores. See explorer.py.
// lowrankExplorer(kind, build) draws each .lowrank-explorer of that data-kind once, from its data-explorer.
window.lowrankExplorer = window.lowrankExplorer || (() => {
  "use strict";
  const DARK = "--ink:#ececf1;--paper:#1b1e24;--line:#8d93a1;--kept:#9ecbff;color-scheme:dark";
  const CSS = `
.lowrank-explorer{--ink:#1c1d21;--paper:#fff;--line:#70747f;--kept:#1f5fa8;color-scheme:light;
  color:var(--ink);background:var(--paper);border:1px solid var(--line);border-radius:.3rem;padding:.8rem;
  max-width:50rem;font-size:.95rem;line-height:1.4}
@media (prefers-color-scheme:dark){
  html:not([data-theme=light]) body:not([data-jp-theme-light=true]) .lowrank-explorer{${DARK}}}
html[data-theme=dark] .lowrank-explorer,body[data-jp-theme-light=false] .lowrank-explorer{${DARK}}
html .cell_output .text_html:has(>.lowrank-explorer){background:none!important;padding:0!important}
.lowrank-explorer *{box-sizing:border-box}
.lowrank-explorer label,.lowrank-explorer output{display:block}
.lowrank-explorer input{width:100%;margin:.3rem 0;min-height:1.5rem;accent-color:var(--kept)}
.lowrank-explorer select{max-width:100%;min-height:1.8rem;margin:.3rem 0;font:inherit;color:inherit;
  background:var(--paper);border:1px solid var(--line)}
.lowrank-explorer .maps{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,var(--map)),1fr));
  align-items:end;gap:.8rem;margin:.8rem 0}
.lowrank-explorer figure{margin:0}
.lowrank-explorer figcaption,.lowrank-explorer caption{color:inherit;text-align:left;font-size:.9rem;
  caption-side:top;padding:0}
.lowrank-explorer canvas{display:block;max-width:100%;image-rendering:pixelated;border:1px solid var(--line)}
.lowrank-explorer svg{display:block;width:100%;max-width:30rem;margin:.5rem 0;color:var(--ink)}
.lowrank-explorer table{border-collapse:collapse;margin:.4rem 0!important;width:auto;font-size:.9rem;
  font-variant-numeric:tabular-nums}
.lowrank-explorer :is(tr,th,td){background:none!important;color:inherit!important;border:0;
  text-align:right!important;padding:.1rem .5rem;font-weight:inherit}
.lowrank-explorer :is(th[scope=row],th:first-child){text-align:left!important}
.lowrank-explorer .tight :is(th,td){white-space:nowrap;padding:.1rem .3rem}
.lowrank-explorer .share+span{display:inline-block;min-width:4em}
.lowrank-explorer .bar{display:inline-block;vertical-align:middle;width:8rem;height:.8rem;margin:0 .4rem;
  border:1px solid var(--line)}
.lowrank-explorer .share{display:inline-block;width:clamp(2rem,12vw,8rem);height:.7rem;margin-right:.5rem;
  border:1px solid var(--line)}
.lowrank-explorer .share>span{display:block;height:100%;background:var(--kept)}
.lowrank-explorer .scroll{overflow-x:auto;display:flex;flex-wrap:wrap;gap:0 1.5rem}
.lowrank-explorer summary{cursor:pointer}`;
  const builders = {};
  let made = 0;

  const add = (parent, tag, attributes = {}, text = "") => {
    const svg = tag === "svg" || parent.namespaceURI.endsWith("svg");
    const node = document.createElementNS(`http://www.w3.org/${svg ? "2000/svg" : "1999/xhtml"}`, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.textContent = text;
    return parent.appendChild(node);
  };
  const short = (x) => (x === 0 ? "0" : String(Number(x.toPrecision(3))).replace("-", "\u2212"));
  const percent = (x) => `${(100 * x).toFixed(1)} %`;
  const count = (x) => x.toLocaleString("en-GB");
  // a row for each name, whose cell the caller fills
  const rows = (parent) => {
    const body = add(add(parent, "table"), "tbody");
    return (name) => {
      const tr = add(body, "tr");
      add(tr, "th", { scope: "row" }, name);
      return add(tr, "td");
    };
  };
  // head: names of the columns; each row: its name, then its cells
  const grid = (parent, caption, head, lines, corner = "") => {
    const table = add(parent, "table");
    add(table, "caption", {}, caption);
    const first = add(add(table, "thead"), "tr"), body = add(table, "tbody");
    add(first, corner ? "th" : "td", corner ? { scope: "col" } : {}, corner);
    head.forEach((h) => add(first, "th", { scope: "col" }, h));
    return lines.map(([name, ...cells]) => {
      const tr = add(body, "tr");
      add(tr, "th", { scope: "row" }, name);
      return cells.map((x) => add(tr, "td", {}, x));
    });
  };
  const scroll = (parent, label) =>
    add(parent, "div", { class: "scroll", tabindex: 0, role: "group", "aria-label": label });

  // Where a chart of scores starts: from the lower quartile, if all between it and the best is a quarter of the
  // whole at most. A few ranks that know nothing would flatten the rest to a line.
  const footOf = (ys, limit) => {
    const rising = [...ys].sort((a, b) => a - b), least = Math.min(rising[0], limit ?? Infinity);
    const high = Math.max(rising.at(-1), limit ?? -Infinity);
    const near = Math.min(rising[Math.floor(rising.length / 4)], limit ?? Infinity);
    return high > near && high - near <= (high - least) / 4 ? near : least;
  };

  // Scores over x: a dot each, a line, the lowest score allowed (dashed), the choice (diamond). Returns a
  // function that moves the disc of the present one. `from`: lower scores are hollow dots on the axis.
  // `axis`: where x runs from and to, and who labels it, if not its least and its largest.
  const chart = (parent, options) => {
    const { xs, ys, log = false, stairs = false, limit = null, chosen = null, title, unit, from, axis } = options;
    const svg = add(parent, "svg", { viewBox: "0 0 360 150", role: "img" });
    const ink = { stroke: "currentColor", fill: "none" }, label = { "font-size": 12, fill: "currentColor" };
    const all = limit === null ? ys : [...ys, limit];
    const low = from ?? Math.min(...all), high = Math.max(...all), scale = log ? Math.log : (x) => x;
    const left = axis ? axis.low : scale(Math.min(...xs)), right = axis ? axis.high : scale(Math.max(...xs));
    const X = (x) => 50 + 294 * (right > left ? (scale(x) - left) / (right - left) : 0.5);
    const Y = (y) => (y < low ? 124 : 118 - 92 * (high > low ? (y - low) / (high - low) : 0.5));
    const places = high > low ? Math.max(2, Math.ceil(-Math.log10(high - low))) : 2;
    add(svg, "text", { x: 4, y: 12, ...label }, title);
    for (const y of new Set([low, high])) {
      add(svg, "text", { x: 44, y: Y(y) + 4, "text-anchor": "end", ...label }, y.toFixed(places));
    }
    if (axis) axis.draw(svg, X);
    else {
      add(svg, "text", { x: 50, y: 145, ...label }, count(Math.min(...xs)));
      add(svg, "text", { x: 197, y: 145, "text-anchor": "middle", ...label }, unit);
      add(svg, "text", { x: 350, y: 145, "text-anchor": "end", ...label }, count(Math.max(...xs)));
    }
    add(svg, "path", { d: "M48,22V124H352", ...ink, "stroke-width": 0.8 });
    if (limit !== null) {
      add(svg, "path", { d: `M48,${Y(limit)}H352`, ...ink, "stroke-dasharray": "4 3" });
      const under = Y(limit) < 70; // where there is room
      add(svg, "text", { x: 350, y: Y(limit) + (under ? 14 : -5), "text-anchor": "end", ...label }, "lowest score allowed");
    }
    let best = -Infinity;
    const path = xs.map((x, i) => {
      const off = ys[i] < low || ys[i - 1] < low;
      best = stairs ? Math.max(best, ys[i]) : ys[i];
      return i && stairs ? `H${X(x)}V${Y(best)}` : `${i && !off ? "L" : "M"}${X(x)},${Y(best)}`;
    });
    add(svg, "path", { d: path.join(""), ...ink });
    xs.forEach((x, i) => add(svg, "circle", { cx: X(x), cy: Y(ys[i]), r: 1.8, stroke: "currentColor",
      "stroke-width": 0.8, fill: ys[i] < low ? "none" : "currentColor" }));
    const i = xs.indexOf(chosen);
    if (i >= 0) add(svg, "path", { d: `M${X(chosen)},${Y(ys[i]) - 9}l9,9l-9,9l-9,-9z`, ...ink, "stroke-width": 1.5 });
    const disc = add(svg, "circle", { r: 4.5, style: "fill:var(--kept)" });
    return (x, told) => {
      const at = xs.indexOf(x);
      disc.setAttribute("visibility", at < 0 ? "hidden" : "visible");
      disc.setAttribute("cx", at < 0 ? 0 : X(x));
      disc.setAttribute("cy", at < 0 ? 0 : Y(ys[at]));
      svg.setAttribute("aria-label", told);
    };
  };

  function draw(root) {
    const d = JSON.parse(root.dataset.explorer), { title, label, low, high, start, marks } = d.slider;
    const id = `lowrank-explorer-${++made}`;
    root.replaceChildren();
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", title);
    add(root, "label", { for: id }, label);
    const slider = add(root, "input",
      { id, type: "range", min: low, max: high, step: 1, list: `${id}-marks`, autocomplete: "off" });
    const list = add(root, "datalist", { id: `${id}-marks` });
    for (const [value, name] of Object.entries(marks)) add(list, "option", { value, label: name });
    slider.value = start;
    const output = add(root, "output", { for: id, "aria-live": "polite" });
    const update = builders[root.dataset.kind](root, d);
    const move = () => {
      const { now, more, ...state } = update(Number(slider.value));
      slider.setAttribute("aria-valuetext", now);
      output.textContent = now[0].toUpperCase() + now.slice(1) + more;
      root.lowrank = state;
    };
    slider.addEventListener("input", move);
    move();
    // JupyterLab would take the arrow keys for itself; it looks at the element that has the focus first
    for (const node of root.querySelectorAll("input, select, summary, [tabindex]")) {
      node.setAttribute("data-lm-suppress-shortcuts", "true");
    }
  }

  const tools = { add, short, percent, count, rows, grid, scroll, chart, footOf };
  return (kind, build) => {
    if (kind) builders[kind] = builders[kind] || build(tools);
    if (!document.getElementById("lowrank-explorer-style")) {
      add(document.head, "style", { id: "lowrank-explorer-style" }, CSS);
    }
    // a property, not an attribute: a copy of the markup is drawn anew
    for (const root of document.querySelectorAll(".lowrank-explorer")) {
      if (!root.lowrank && root.dataset.kind in builders) draw(root);
    }
  };
})();
