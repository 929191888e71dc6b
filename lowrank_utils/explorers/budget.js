// BudgetExplorer: each layer's rank for a budget, and the frontier. See budget_explorer.py.
window.lowrankExplorer("budget", (tools) => {
  "use strict";
  const { add, percent, count, rows, grid, scroll, chart } = tools;

  return (root, d) => {
    const dense = d.networks.at(-1), sizes = d.networks.map((net) => net.params), first = sizes[0];
    const scores = d.networks.map((net) => net.score), allowed = d.baseline - d.drop;
    const rank = (r) => (r ? String(r) : "dense");

    // A full bar is the dense layer. The numbers beside it say the same.
    const table = scroll(root, "Layers");
    table.classList.add("layers", "tight");
    const layers = grid(table, "Each layer's rank, and the share of its weights kept", ["rank", "share", "error"],
      d.layers.map(({ name, m, n }) => [`${name} (${m} \u00d7 ${n})`, "", "", ""]), "layer").map(([r, share, error]) => {
      const bar = add(add(share, "span", { class: "share", "aria-hidden": "true" }), "span");
      return { r, error, bar, kept: add(share, "span") };
    });
    const mark = chart(root, { xs: sizes, ys: scores, log: true, stairs: true, limit: allowed,
      chosen: d.feasible ? sizes[d.chosen - 1] : null, unit: "parameters, log scale",
      title: d.feasible ? `${d.score}; line: the frontier; diamond: returned` : `${d.score}; line: the frontier` });

    const row = rows(add(root, "div", { class: "facts tight" }));
    const params = row("Parameters"), macs = row("MACs a sample");
    const score = row(d.score), verdict = row(`Drop (allowed: ${d.drop})`);

    const details = add(root, "details");
    add(details, "summary", {}, "Every network that was tried");
    grid(scroll(details, "Every network that was tried"), "Ranks by layer, smallest network first",
      [...d.layers.map(({ name }) => `layer ${name}`), d.score],
      d.networks.map((net) => [count(net.params), ...net.ranks.map(rank), net.score.toFixed(4)]), "parameters");

    return (i) => {
      const net = d.networks[i - 1], share = percent(net.params / dense.params);
      const ranks = net.ranks.map((r, l) => `layer ${d.layers[l].name} ${r ? `rank ${r}` : "dense"}`).join(", ");
      const role = net === dense ? "the dense model" : i === d.chosen && d.feasible ? "returned" : "tried";
      const now = `${count(net.params)} parameters (${share}), ${role}: ${d.score} ${net.score.toFixed(4)}`;
      layers.forEach(({ r, bar, kept, error }, l) => {
        const share = net.weights[l] / (d.layers[l].m * d.layers[l].n);
        r.textContent = rank(net.ranks[l]);
        bar.style.width = `${100 * share}%`;
        kept.textContent = percent(share);
        error.textContent = net.ranks[l] ? percent(net.errors[l]) : "0 %";
      });
      params.textContent = `${count(net.params)} of ${count(dense.params)} (${share})`;
      macs.textContent = `${count(net.macs)} of ${count(dense.macs)} (${percent(net.macs / dense.macs)})`;
      score.textContent = `${net.score.toFixed(4)}, dense ${d.baseline.toFixed(4)}`;
      const drop = d.baseline - net.score, fits = drop <= d.drop + 1e-9;
      verdict.textContent = `${drop.toFixed(4).replace("-", "\u2212")}: ${fits ? "allowed" : "too much"}`;
      mark(net.params, `${d.score} against parameters, ${d.networks.length} networks from ${count(first)} to ` +
        `${count(dense.params)}; now ${now}; lowest score allowed ${allowed.toFixed(4)}`);
      return { now, more: `; ${ranks}`, network: net };
    };
  };
});
