// KernelExplorer: a kernel in each low-rank form, its filters before and after. See kernel.py.
window.lowrankExplorer("kernel", (tools) => {
  "use strict";
  const { add, short, percent, count, rows, chart } = tools;
  const PUOR = ["b35806", "fdb863", "f7f7f7", "b2abd2", "542788"].map(
    (c) => [0, 2, 4].map((i) => parseInt(c.slice(i, i + 2), 16)));
  const colour = (x) => {
    const at = 2 + 2 * Math.min(1, Math.max(-1, x)), i = Math.min(3, Math.floor(at));
    return `rgb(${PUOR[i].map((c, b) => Math.round(c + (at - i) * (PUOR[i + 1][b] - c)))})`;
  };
  const bytes = (text) => Int8Array.from(atob(text), (c) => c.charCodeAt(0));
  const label = { "font-size": 12, fill: "currentColor" };
  const told = (rank) => (Array.isArray(rank) ? rank.join(" \u00d7 ") : String(rank));

  return (root, d) => {
    const [m, n, ...k] = d.shape, K = k.reduce((a, b) => a * b), picture = k.length > 1 && Math.min(...k) > 1;
    const slider = root.querySelector("input"), caption = root.querySelector("label");
    const before = bytes(d.before), names = Object.keys(d.forms);
    const after = Object.fromEntries(names.map((name) => [name, bytes(d.forms[name].after)]));

    // the form stands above the rank; another one starts at the largest rank that needs no more numbers
    const box = root.insertBefore(document.createElement("div"), caption);
    add(box, "label", { for: `${slider.id}-form` }, `Form of ${d.name} (${d.shape.join(" \u00d7 ")})`);
    const select = add(box, "select", { id: `${slider.id}-form`, autocomplete: "off" });
    for (const name of names) add(select, "option", { value: name }, `${name}: ${d.forms[name].says}`);

    const key = add(root, "p", {}, picture
      ? `The strongest filters, before and after, from ${short(-127 * d.step)} (orange) to ${short(127 * d.step)} (purple):`
      : "The strongest filters along their taps, before (thin) and after (thick):");
    key.setAttribute("style", "margin:.6rem 0 0");
    const maps = add(root, "div", { class: "maps", style: `--map:${picture ? 6 : 7}rem` });
    const drawings = d.filters.map(([o, i]) => {
      const figure = add(maps, "figure");
      add(figure, "figcaption", {}, `output ${o}, input ${i}`);
      return add(figure, "svg", { role: "img", viewBox: picture ? `0 0 ${2 * k[1] + 1} ${k[0]}` : "0 0 120 60" });
    });
    const spectrum = add(root, "div"), scores = add(root, "div");
    const row = rows(root), error = row("Relative error"), params = row("Parameters"), macs = row(`MACs ${d.unit}`);
    const score = names.some((name) => Object.keys(d.forms[name].scores).length) ? row(d.score) : null;

    const line = (svg, values, from, style) => {
      const y = (v) => (30 - v * 28 / 127).toFixed(1);
      const path = Array.from({ length: K }, (_, t) => `${t ? "L" : "M"}${(2 + 116 * t / Math.max(1, K - 1)).toFixed(1)},${y(values[from + t])}`);
      add(svg, "path", { d: path.join(""), fill: "none", style });
    };
    const cells = (svg, values, from, left) => {
      for (let t = 0; t < K; t++) {
        add(svg, "rect", { x: left + t % k[1], y: Math.floor(t / k[1]), width: 1, height: 1,
          style: `fill:${colour(values[from + t] / 127)}` });
      }
    };
    const paint = (form, at) => drawings.forEach((svg, f) => {
      svg.replaceChildren();
      const values = after[form], from = (at * d.filters.length + f) * K, [o, i] = d.filters[f];
      const pair = [...before.slice(f * K, f * K + K)].map((b, t) => [b, values[from + t]]);
      const off = pair.reduce((sum, [b, a]) => sum + (b - a) ** 2, 0), all = pair.reduce((sum, [b]) => sum + b * b, 0);
      svg.setAttribute("aria-label", `Filter of output ${o}, input ${i}; after the cut it is ` +
        `${all ? percent(Math.sqrt(off / all)) : "0 %"} off`);
      if (picture) {
        cells(svg, before, f * K, 0);
        cells(svg, values, from, k[1] + 1);
        return;
      }
      add(svg, "line", { x1: 2, x2: 118, y1: 30, y2: 30, stroke: "currentColor", "stroke-width": 0.4 });
      line(svg, values, from, "stroke:var(--kept);stroke-width:2.6");
      line(svg, before, f * K, "stroke:currentColor;stroke-width:.9");
    });

    let bars = [], kept = null, mark = null, drawn = null, svg = null;
    const change = (name) => {
      const { S, scores: known, params: sizes } = d.forms[name], wide = 294 / S.length;
      spectrum.replaceChildren();
      svg = add(spectrum, "svg", { viewBox: "0 0 360 104", role: "img" });
      bars = S.map((s, j) => add(svg, "rect", { x: 50 + wide * (j + 0.1), width: 0.8 * wide, y: 88 - 66 * s / (S[0] || 1),
        height: 66 * s / (S[0] || 1), stroke: "currentColor", "stroke-width": Math.min(1, wide / 5) }));
      kept = add(svg, "text", { x: 50, y: 12, ...label });
      add(svg, "text", { x: 44, y: 28, ...label, "text-anchor": "end" }, short(S[0]));
      add(svg, "text", { x: 44, y: 92, ...label, "text-anchor": "end" }, "0");
      add(svg, "text", { x: 50, y: 102, ...label }, "1");
      add(svg, "text", { x: 344, y: 102, ...label, "text-anchor": "end" }, S.length);
      scores.replaceChildren();
      const places = Object.keys(known).map(Number);
      mark = places.length > 1 ? chart(scores, { xs: places.map((p) => sizes[p]), ys: Object.values(known), log: true,
        title: d.score, unit: `parameters of ${name}, log scale` }) : null;
      drawn = name;
    };
    select.addEventListener("change", () => {
      const now = d.forms[drawn].params[slider.value - 1], sizes = d.forms[select.value].params;
      slider.max = sizes.length;
      slider.value = Math.max(1, sizes.filter((size) => size <= now).length);
      slider.dispatchEvent(new Event("input"));
    });

    return (place) => {
      const name = select.value, form = d.forms[name], at = place - 1, rank = form.ranks[at];
      if (drawn !== name) change(name);
      caption.textContent = `Rank of form ${name}, from ${told(form.ranks[0])} to ${told(form.ranks.at(-1))}`;
      const size = form.params[at], share = percent(size / d.params), first = Array.isArray(rank) ? rank[0] : rank;
      const missed = percent(form.error[at]);
      paint(name, at);
      bars.forEach((bar, j) => bar.setAttribute("style", `fill:${j < first ? "var(--kept)" : "none"}`));
      kept.textContent = `kept: ${first} of ${form.S.length} singular values` + (name === "tucker2" ? " of the outputs" : "");
      svg.setAttribute("aria-label", `Singular values of the unfolding ${name}, from ${short(form.S[0])} down to ` +
        `${short(form.S.at(-1))}; the first ${first} of ${form.S.length} are kept`);
      error.textContent = missed;
      params.textContent = `${count(size)} of ${count(d.params)} (${share})`;
      macs.textContent = `${count(form.macs[at])} of ${count(d.macs)} (${percent(form.macs[at] / d.macs)})`;
      const known = at in form.scores ? form.scores[at].toFixed(4) : "not measured";
      if (score) score.textContent = known;
      if (mark) mark(at in form.scores ? size : -1, `${d.score} against parameters of form ${name}; rank ${told(rank)}: ${known}`);
      const now = `${name}, rank ${told(rank)}: ${share} of the numbers, relative error ${missed}`;
      return { now, more: "", form: name, rank, after: Array.from(after[name].slice(at * d.filters.length * K, place * d.filters.length * K)) };
    };
  };
});
