// RankExplorer: W, its rank-r approximation and their difference. See explorer.py.
window.lowrankExplorer("rank", (tools) => {
  "use strict";
  const { add, short, percent, rows, grid, scroll, chart } = tools;
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

    // The spectrum: kept values are filled, the others outlined, and a line stands between them. An image's
    // falls over decades, so its bars are logarithms, down to the power of ten below the least above 0.
    const svg = add(root, "svg", { viewBox: "0 0 360 108", role: "img" }), wide = 340 / full;
    const floor = 10 ** Math.floor(Math.log10(S.findLast((s) => s > 0) ?? 1));
    const log = image && S[0] > floor;
    const height = (s) => 66 * (log ? Math.log(Math.max(1, s / floor)) / Math.log(S[0] / floor) : s / (S[0] || 1));
    const bars = S.map((s, i) => add(svg, "rect", { x: 10 + wide * (i + 0.1), width: 0.8 * wide,
      y: 84 - height(s), height: height(s), stroke: "currentColor", "stroke-width": Math.min(1, wide / 5) }));
    const cut = add(svg, "line", { y1: 14, y2: 90, stroke: "currentColor", "stroke-width": 1.5 });
    const kept = add(svg, "text", { y: 11, "font-size": 12, fill: "currentColor" });
    if (d.even >= 1) {
      const x = 10 + wide * d.even, end = x > 180;
      add(svg, "line", { x1: x, x2: x, y1: 14, y2: 93, stroke: "currentColor", "stroke-dasharray": "3 3" });
      add(svg, "text", { x, y: 105, "font-size": 12, fill: "currentColor",
        "text-anchor": end ? "end" : "start" }, `break-even rank ${d.even}`);
    }
    if (log) add(root, "div", {}, `Bars: singular values on a log scale, from ${short(S[0])} down to ${short(floor)}.`);

    const tried = Object.keys(d.curve).map(Number), scores = Object.values(d.curve);
    const mark = tried.length > 1 ? chart(root, { xs: tried, ys: scores, limit: d.allowed, chosen: d.found,
      title: d.found ? `Score; diamond: rank ${d.found}, the smallest allowed` : "Score", unit: "rank" }) : null;

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
      const scored = r in d.curve ? d.curve[r].toFixed(4) : "not measured";
      if (score) score.textContent = scored + (r === d.found ? ": the smallest rank allowed" : "");
      if (mark) mark(r, `Score against rank, ${Math.min(...scores).toFixed(4)} to ${Math.max(...scores).toFixed(4)}; ` +
        `rank ${r}: ${scored}` + (d.found ? `; smallest rank allowed: ${d.found}` : ""));
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
