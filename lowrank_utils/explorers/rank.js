// RankExplorer: W, its rank-r approximation and their difference. See explorer.py.
window.lowrankExplorer("rank", (tools) => {
  "use strict";
  const { add, short, percent, rows, grid, scroll, chart, footOf } = tools;
  const PUOR = ["7f3b08", "b35806", "e08214", "fdb863", "fee0b6", "f7f7f7",
    "d8daeb", "b2abd2", "8073ac", "542788", "2d004b"].map(
    (c) => [0, 2, 4].map((i) => parseInt(c.slice(i, i + 2), 16)));
  const numbers = (text, Kind) =>
    Float64Array.from(new Kind(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer));
  const norm = (A) => Math.sqrt(A.reduce((sum, x) => sum + x * x, 0));
  const least = (A) => A.reduce((a, x) => Math.min(a, x), Infinity);
  const largest = (A) => A.reduce((a, x) => Math.max(a, x), -Infinity);

  return (root, d) => {
    const { m, n, k, S } = d, full = S.length, image = d.kind === "image", small = Math.max(m, n) <= 16;
    const W = numbers(d.W, image ? Uint8Array : Int16Array).map((q) => d.low + d.step * q);
    const U = numbers(d.U, Int16Array).map((q) => q / 32767), V = numbers(d.V, Int16Array).map((q) => q / 32767);
    const top = largest(W), bottom = least(W);
    const places = Math.round(-Math.log10(d.step)); // as many as W is drawn from; only an exact 0 is "0"
    const fixed = (x) => (x === 0 || places < 1 || places > 6 ? short(x)
      : x.toFixed(places).replace(/^-(?=.*[1-9])/, "\u2212").replace("-", ""));
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
    add(key, "span", { class: "bar", "aria-hidden": "true",
      style: `background:linear-gradient(90deg,${PUOR.map((c) => `rgb(${c})`)})` });
    key.append(`${short(limit)}${image ? "" : "; 0 is white"}`);

    const tried = Object.keys(d.curve).map(Number), scores = Object.values(d.curve), scored = tried.length > 1;

    // One rank axis for the spectrum and, under it, the scores: a bar and its dot stand above each other.
    const label = { "font-size": 12, fill: "currentColor" };
    const breakEven = (svg, X, y1, y2) => d.even < 1 ? null : add(svg, "line",
      { x1: X(d.even), x2: X(d.even), y1, y2, stroke: "currentColor", "stroke-dasharray": "3 3" });
    const ticks = (svg, X, y) => {
      const even = X(d.even), end = even + 55 > X(full) - 8; // leave room for the last rank
      if (d.even < 1) add(svg, "text", { x: 197, y, ...label, "text-anchor": "middle" }, full > 1 ? "rank" : "");
      else add(svg, "text", { x: even + (end ? 6 : 0), y, ...label, "text-anchor": end ? "end" : "middle" },
        `break-even rank ${d.even}`);
      for (const r of new Set([1, full])) {
        const taken = d.even >= 1 && Math.abs(X(r) - even) < 16;
        if (!taken) add(svg, "text", { x: X(r), y, ...label, "text-anchor": "middle" }, r);
      }
    };
    const axis = { low: 0.5, high: full + 0.5, draw: (svg, X) => {
      breakEven(svg, X, 18, 130);
      ticks(svg, X, 142);
    } };

    // The spectrum: kept values are filled, the others outlined, and a line stands between them. An image's
    // falls over decades, so its bars are logarithms, down to the power of ten below the least above 0.
    const svg = add(root, "svg", { viewBox: `0 0 360 ${scored ? 92 : 108}`, role: "img" }), wide = 294 / full;
    const X = (r) => 50 + wide * (r - 0.5);
    const floor = 10 ** Math.floor(Math.log10(S.findLast((s) => s > 0) ?? 1));
    const log = image && S[0] > floor;
    const height = (s) => 66 * (log ? Math.log(Math.max(1, s / floor)) / Math.log(S[0] / floor) : s / (S[0] || 1));
    const bars = S.map((s, i) => add(svg, "rect", { x: X(i + 1) - 0.4 * wide, width: 0.8 * wide,
      y: 84 - height(s), height: height(s), stroke: "currentColor", "stroke-width": Math.min(1, wide / 5) }));
    const cut = add(svg, "line", { y1: 14, y2: 90, stroke: "currentColor", "stroke-width": 1.5 });
    const kept = add(svg, "text", { y: 11, ...label });
    add(svg, "text", { x: 44, y: 24, ...label, "text-anchor": "end" }, short(S[0]));
    add(svg, "text", { x: 44, y: 88, ...label, "text-anchor": "end" }, short(log ? floor : 0));
    breakEven(svg, X, 16, 92);
    if (!scored) ticks(svg, X, 105);
    if (log) add(root, "div", {}, `Bars: singular values on a log scale, from ${short(S[0])} down to ${short(floor)}.`);

    const from = scored ? footOf(scores, d.allowed) : 0, lower = scores.filter((score) => score < from);
    const mark = scored ? chart(root, { xs: tried, ys: scores, limit: d.allowed, chosen: d.found, from, axis,
      title: d.found ? `Score; diamond: rank ${d.found}, the smallest allowed` : "Score" }) : null;
    if (lower.length) {
      const [worst, best] = [Math.min(...lower), Math.max(...lower)].map((score) => score.toFixed(3));
      add(root, "div", {}, `Hollow: scores below the axis, ${worst === best ? worst : `from ${worst} to ${best}`}.`);
    }

    const row = rows(root), error = row("Relative error"), energy = row("Energy kept");
    const cost = row(image ? "Numbers to store, r(m + n) of mn" : "Parameters, r(m + n) of mn");
    const macs = image ? null : row("MACs a sample");
    const score = tried.length ? row("Score at this rank") : null;
    row("Break-even rank").textContent = d.even || "none: no rank saves anything";

    const details = add(root, "details");
    add(details, "summary", {}, small ? "The numbers" : "The numbers, in summary");
    const sheet = scroll(details, `Numbers of ${d.name}`);
    add(details, "p", {}, `Drawn from ${d.name} in steps of ${short(d.step)}; the errors are of ${d.name} as given.`);

    return (r) => {
      const exact = r === full;
      // the factors are rounded, and would miss W by their rounding: full rank means W itself
      const A = exact ? W.slice() : product(r), D = W.map((x, i) => x - A[i]);
      // to a tenth of a percent: 0 and 100 are said of full rank alone
      const missed = exact ? "0 %" : d.error[r - 1] ? percent(d.error[r - 1]) : "< 0.05 %";
      const held = exact ? "100 %" : d.energy[r - 1] < 1 ? percent(d.energy[r - 1]) : "> 99.9 %";
      const now = `rank ${r} of ${full}: relative error ${missed}`;
      [W, A, D].forEach((M, i) => paint(canvases[i], M, image && i < 2));
      canvases[0].setAttribute("aria-label", `${d.name}, ${m} by ${n}, from ${short(bottom)} to ${short(top)}`);
      canvases[1].setAttribute("aria-label", `Approximation of ${d.name}, ${now}`);
      const far = D.reduce((a, x) => Math.max(a, Math.abs(x)), 0);
      canvases[2].setAttribute("aria-label", `Difference at ${now}; largest entry ${short(far)}`);
      const x = 50 + wide * r;
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
      const told = r in d.curve ? d.curve[r].toFixed(4) : "not measured";
      if (score) score.textContent = told + (r === d.found ? ": the smallest rank allowed" : "");
      if (mark) mark(r, `Score against rank, ${Math.min(...scores).toFixed(4)} to ${Math.max(...scores).toFixed(4)}; ` +
        `rank ${r}: ${told}` + (d.found ? `; smallest rank allowed: ${d.found}` : ""));
      sheet.replaceChildren();
      const all = [[d.name, W], [`Approximation, rank ${r}`, A], ["Difference", D]];
      if (small) {
        const columns = Array.from({ length: n }, (_, j) => j + 1);
        all.forEach(([name, M]) => grid(sheet, name, columns, Array.from({ length: m },
          (_, i) => [i + 1, ...Array.from(M.slice(i * n, i * n + n), fixed)])));
      } else {
        grid(sheet, `At rank ${r}`, ["least", "largest", "Frobenius norm"],
          all.map(([name, M]) => [name, ...[least(M), largest(M), norm(M)].map(short)]));
      }
      const more = `, energy kept ${held}${exact ? "; W itself, residual exactly 0" : ""}`;
      return { now, more, rank: r, W, approximation: A, residual: D };
    };
  };
});
