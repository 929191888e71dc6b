// Draws each .lowrank-explorer once, from the numbers in its data-explorer: see explorer.py.
window.lowrankExplorer = window.lowrankExplorer || (() => {
  "use strict";
  const PUOR = ["7f3b08", "b35806", "e08214", "fdb863", "fee0b6", "f7f7f7",
    "d8daeb", "b2abd2", "8073ac", "542788", "2d004b"].map(
    (c) => [0, 2, 4].map((i) => parseInt(c.slice(i, i + 2), 16)));
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
.lowrank-explorer .maps{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,var(--map)),1fr));
  gap:.8rem;margin:.8rem 0}
.lowrank-explorer figure{margin:0}
.lowrank-explorer figcaption,.lowrank-explorer caption{color:inherit;text-align:left;font-size:.9rem;
  caption-side:top;padding:0}
.lowrank-explorer canvas{display:block;max-width:100%;image-rendering:pixelated;border:1px solid var(--line)}
.lowrank-explorer svg{display:block;width:100%;max-width:30rem;margin:.5rem 0;color:var(--ink)}
.lowrank-explorer table{border-collapse:collapse;margin:.4rem 0!important;width:auto;font-size:.9rem;
  font-variant-numeric:tabular-nums}
.lowrank-explorer :is(tr,th,td){background:none!important;color:inherit!important;border:0;
  text-align:right!important;padding:.1rem .5rem;font-weight:inherit}
.lowrank-explorer th[scope=row]{text-align:left!important}
.lowrank-explorer .bar{display:inline-block;vertical-align:middle;width:8rem;height:.8rem;margin:0 .4rem;
  border:1px solid var(--line);background:linear-gradient(90deg,${PUOR.map((c) => `rgb(${c})`)})}
.lowrank-explorer .scroll{overflow-x:auto;display:flex;flex-wrap:wrap;gap:0 1.5rem}
.lowrank-explorer summary{cursor:pointer}`;
  let made = 0;

  const add = (parent, tag, attributes = {}, text = "") => {
    const svg = tag === "svg" || parent.namespaceURI.endsWith("svg");
    const node = document.createElementNS(`http://www.w3.org/${svg ? "2000/svg" : "1999/xhtml"}`, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.textContent = text;
    return parent.appendChild(node);
  };
  const numbers = (text, Kind) =>
    Float64Array.from(new Kind(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer));
  const short = (x) => (x === 0 ? "0" : String(Number(x.toPrecision(3))).replace("-", "\u2212"));
  const percent = (x) => `${(100 * x).toFixed(1)} %`;
  const norm = (A) => Math.sqrt(A.reduce((sum, x) => sum + x * x, 0));

  function build(root) {
    const d = JSON.parse(root.dataset.explorer), { m, n, k, S } = d, id = `lowrank-explorer-${++made}`;
    const full = Math.min(m, n), image = d.kind === "image", small = Math.max(m, n) <= 16;
    const W = numbers(d.W, image ? Uint8Array : Int16Array).map((q) => d.low + d.step * q);
    const U = numbers(d.U, Int16Array).map((q) => q / 32767), V = numbers(d.V, Int16Array).map((q) => q / 32767);
    const top = W.reduce((a, x) => Math.max(a, x), -Infinity), bottom = W.reduce((a, x) => Math.min(a, x), Infinity);
    const places = Math.round(-Math.log10(d.step)); // as many as W is drawn from; only an exact 0 is "0"
    const fixed = (x) => (x === 0 || places < 1 || places > 6 ? short(x) : x.toFixed(places).replace(/^-(?=.*[1-9])/, "\u2212").replace("-", ""));
    const limit = (image ? top - bottom : Math.max(top, -bottom)) || 1;

    const product = (r) => {
      const A = new Float64Array(m * n);
      for (let i = 0; i < m; i++) for (let t = 0; t < r; t++) {
        const us = U[i * k + t] * S[t];
        for (let j = 0; j < n; j++) A[i * n + j] += us * V[j * k + t];
      }
      return A;
    };
    const paint = (canvas, A, grey) => {
      const context = canvas.getContext("2d"), pixels = context.createImageData(n, m);
      for (let i = 0; i < A.length; i++) {
        const x = grey ? (A[i] - bottom) / (top - bottom || 1) : (A[i] / limit + 1) / 2;
        const at = 10 * Math.min(1, Math.max(0, x)), c = Math.min(9, Math.floor(at));
        for (let b = 0; b < 3; b++) {
          pixels.data[4 * i + b] = grey ? 25.5 * at : PUOR[c][b] + (at - c) * (PUOR[c + 1][b] - PUOR[c][b]);
        }
        pixels.data[4 * i + 3] = 255;
      }
      context.putImageData(pixels, 0, 0);
    };

    root.replaceChildren();
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", `Rank explorer of ${d.name}`);
    add(root, "label", { for: id }, `Rank r of ${d.name} (${m} \u00d7 ${n}), from 1 to ${k}`);
    const slider = add(root, "input",
      { id, type: "range", min: 1, max: k, step: 1, list: `${id}-marks`, autocomplete: "off" });
    const marks = add(root, "datalist", { id: `${id}-marks` });
    if (d.even >= 1 && d.even <= k) add(marks, "option", { value: d.even, label: "break-even" });
    slider.value = d.start;
    const output = add(root, "output", { for: id, "aria-live": "polite" });

    const maps = add(root, "div", { class: "maps", style: `--map:${image ? 13 : 6}rem` });
    const names = [d.name, "W\u1d63, of rank r", `${d.name} \u2212 W\u1d63`];
    const canvases = names.map((name) => {
      const figure = add(maps, "figure");
      add(figure, "figcaption", {}, name);
      return add(figure, "canvas", { role: "img", width: n, height: m,
        style: `width:${13 * n / Math.max(m, n)}rem;aspect-ratio:${n}/${m}` });
    });
    const key = add(root, "div");
    key.append(image ? "Difference: " : "One scale for all three: ", short(-limit));
    add(key, "span", { class: "bar", "aria-hidden": "true" });
    key.append(`${short(limit)}${image ? "" : "; 0 is white"}`);

    // the spectrum: kept values are filled, the others outlined, and a line stands between them
    const svg = add(root, "svg", { viewBox: "0 0 360 108", role: "img" }), wide = 340 / full;
    const bars = S.map((s, i) => add(svg, "rect", { x: 10 + wide * (i + 0.1), width: 0.8 * wide,
      y: 84 - 66 * s / (S[0] || 1), height: 66 * s / (S[0] || 1), stroke: "currentColor",
      "stroke-width": Math.min(1, wide / 5) }));
    const cut = add(svg, "line", { y1: 14, y2: 90, stroke: "currentColor", "stroke-width": 1.5 });
    const kept = add(svg, "text", { y: 11, "font-size": 12, fill: "currentColor" });
    if (d.even >= 1) {
      const x = 10 + wide * d.even, end = x > 180;
      add(svg, "line", { x1: x, x2: x, y1: 14, y2: 93, stroke: "currentColor", "stroke-dasharray": "3 3" });
      add(svg, "text", { x, y: 105, "font-size": 12, fill: "currentColor",
        "text-anchor": end ? "end" : "start" }, `break-even rank ${d.even}`);
    }

    const table = add(add(root, "table"), "tbody");
    const row = (name) => {
      const tr = add(table, "tr");
      add(tr, "th", { scope: "row" }, name);
      return add(tr, "td");
    };
    const error = row("Relative error"), energy = row("Energy kept");
    const cost = row(image ? "Numbers to store, r(m + n) of mn" : "Parameters, r(m + n) of mn");
    const macs = image ? null : row("MACs a sample");
    const score = Object.keys(d.curve).length ? row("Score at this rank") : null;
    row("Break-even rank").textContent = d.even || "none: no rank saves anything";

    const details = add(root, "details");
    add(details, "summary", {}, small ? "The numbers" : "The numbers, in summary");
    const sheet = add(details, "div", { class: "scroll", tabindex: 0, role: "group",
      "aria-label": `Numbers of ${d.name}` });
    const grid = (caption, head, rows) => {
      const made = add(sheet, "table");
      add(made, "caption", {}, caption);
      const first = add(add(made, "thead"), "tr"), body = add(made, "tbody");
      add(first, "td");
      head.forEach((h) => add(first, "th", { scope: "col" }, h));
      rows.forEach(([name, cells]) => {
        const tr = add(body, "tr");
        add(tr, "th", { scope: "row" }, name);
        cells.forEach((x) => add(tr, "td", {}, small ? fixed(x) : short(x)));
      });
    };
    const note = add(details, "p");
    note.textContent = `Drawn from ${d.name} in steps of ${short(d.step)}; the errors are of ${d.name} as given.`;

    const update = () => {
      const r = Number(slider.value), exact = r === full;
      // the factors are rounded, and would miss W by their rounding: full rank means W itself
      const A = exact ? W.slice() : product(r), D = W.map((x, i) => x - A[i]);
      // to a tenth of a percent: 0 and 100 are said of full rank alone
      const missed = exact ? "0 %" : d.error[r - 1] ? percent(d.error[r - 1]) : "< 0.05 %";
      const held = exact ? "100 %" : d.energy[r - 1] < 1 ? percent(d.energy[r - 1]) : "> 99.9 %";
      const now = `rank ${r} of ${full}: relative error ${missed}`;
      slider.setAttribute("aria-valuetext", now);
      output.textContent = `R${now.slice(1)}, energy kept ${held}${exact ? "; W itself, residual exactly 0" : ""}`;
      [W, A, D].forEach((M, i) => paint(canvases[i], M, image && i < 2));
      canvases[0].setAttribute("aria-label", `${d.name}, ${m} by ${n}, from ${short(bottom)} to ${short(top)}`);
      canvases[1].setAttribute("aria-label", `Approximation of ${d.name}, ${now}`);
      const far = D.reduce((a, x) => Math.max(a, Math.abs(x)), 0);
      canvases[2].setAttribute("aria-label", `Difference at ${now}; largest entry ${short(far)}`);
      const x = 10 + wide * r;
      bars.forEach((bar, i) => bar.setAttribute("style", `fill:${i < r ? "var(--kept)" : "none"}`));
      for (const end of ["x1", "x2"]) cut.setAttribute(end, x);
      kept.setAttribute("x", x + (x > 180 ? -3 : 3));
      kept.setAttribute("text-anchor", x > 180 ? "end" : "start");
      kept.textContent = `kept: ${r} of ${full} singular values`;
      svg.setAttribute("aria-label", `Singular values of ${d.name}, from ${short(S[0])} down to ` +
        `${short(S[full - 1])}; the first ${r} of ${full} are kept` + (d.even ? `; break-even rank ${d.even}` : ""));
      error.textContent = missed;
      energy.textContent = held;
      const used = r * (m + n);
      cost.textContent = `${used} of ${m * n} (${percent(used / (m * n))})${r > d.even ? ": more than W" : ""}`;
      if (macs) macs.textContent = `${used} of ${m * n}`;
      if (score) score.textContent = r in d.curve ? d.curve[r].toFixed(4) : "not measured";
      sheet.replaceChildren();
      const all = [[d.name, W], [`Approximation, rank ${r}`, A], ["Difference", D]];
      if (small) {
        const columns = Array.from({ length: n }, (_, j) => j + 1);
        all.forEach(([name, M]) => grid(name, columns, Array.from({ length: m },
          (_, i) => [i + 1, Array.from(M.slice(i * n, i * n + n))])));
      } else {
        grid(`At rank ${r}`, ["least", "largest", "Frobenius norm"], all.map(([name, M]) => [name,
          [M.reduce((a, x) => Math.min(a, x)), M.reduce((a, x) => Math.max(a, x)), norm(M)]]));
      }
      root.lowrank = { rank: r, W, approximation: A, residual: D };
    };
    slider.addEventListener("input", update);
    update();
  }

  return () => {
    if (!document.getElementById("lowrank-explorer-style")) {
      add(document.head, "style", { id: "lowrank-explorer-style" }, CSS);
    }
    // a property, not an attribute: a copy of the markup is drawn anew
    for (const root of document.querySelectorAll(".lowrank-explorer")) if (!root.lowrank) build(root);
  };
})();
window.lowrankExplorer();
