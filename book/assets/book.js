/* What is wider than its column scrolls: show that there is more, let the keyboard reach it, and give it a name. */
(() => {
  const KINDS = [
    ["mjx-container", "Formula"],
    [".pst-scrollable-table-container, .cell_output table, .cell_output .output", "Table"],
    [".cell_output pre", "Output"],
    ["pre", "Code"],
  ];
  const BOXES = KINDS.map(([selector]) => selector).join(", ");
  const fade = (box) => {
    const hidden = box.scrollWidth - box.clientWidth;
    box.classList.toggle("more-left", box.matches(".scrolls") && box.scrollLeft > 1);
    box.classList.toggle("more-right", box.matches(".scrolls") && box.scrollLeft < hidden - 1);
  };
  const inline = (box) => box.matches("mjx-container:not([display])");
  const holder = (box) => box.parentElement.closest("p, li, td, th, dd, dt, div");
  const mark = (box) => {
    if (inline(box)) box.classList.remove("scrolls"); // its own width, before it is asked
    const room = inline(box) ? holder(box).clientWidth : box.clientWidth;
    const wide = inline(box) ? box.getBoundingClientRect().width > room : box.scrollWidth > room + 1;
    box.classList.toggle("scrolls", wide && room > 0);
    if (wide && room > 0) {
      const [, name] = KINDS.find(([selector]) => box.matches(selector));
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", `${name}, scrolls sideways`);
      box.addEventListener("scroll", () => fade(box), { passive: true });
    } else if (box.getAttribute("role") === "group") {
      for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
    }
    fade(box);
  };
  window.addEventListener("load", async () => {
    await window.MathJax?.startup?.promise;
    await document.fonts.ready;
    const within = new Map(); // an inline formula has no size of its own to observe: what it stands in has
    const sizes = new ResizeObserver((seen) => seen.forEach(({ target }) => within.get(target).forEach(mark)));
    for (const box of document.querySelectorAll(`.bd-article :is(${BOXES})`)) {
      const watched = inline(box) ? holder(box) : box;
      within.set(watched, [...(within.get(watched) ?? []), box]);
      sizes.observe(watched);
    }
  });
})();

/* "You have read 2 of 6 chapters": a box to tick at the end of each, ticks in the side bar, a count on the first page.
   The browser's own storage holds it, and no one else; where a browser forbids that, nothing is shown. */
(() => {
  const file = (path) => path.split("/").pop() || "index.html";
  const root = new URL(document.documentElement.dataset.content_root || "./", location.href).pathname;
  const key = `chapters read: ${root}`;
  const load = () => new Set(JSON.parse(localStorage.getItem(key) || "[]"));
  const add = (parent, tag, properties) =>
    parent.appendChild(Object.assign(document.createElement(tag), properties));

  document.addEventListener("DOMContentLoaded", () => {
    const links = [...document.querySelectorAll(".bd-sidebar-primary nav a.reference.internal")];
    const chapters = links
      .filter((link) => /^\d+\.\s/.test(link.textContent.trim())) // numbered ones; the current page's address is "#"
      .map((link) => ({ link, name: file(new URL(link.href).pathname) }));
    const here = chapters.find(({ name }) => name === file(location.pathname));
    const list = document.querySelector("article #the-chapters");
    try {
      load();
    } catch {
      return;
    }
    const ticks = chapters.map(({ link }) => add(link, "span", { className: "read-tick" }));
    const place = here ? document.querySelector("article.bd-article") : list;
    const bar = place && add(place, "div", { className: "read-bar" });
    const label = here && bar && add(bar, "label");
    const box = label && add(label, "input", { type: "checkbox" });
    if (label) label.append("I have read this chapter");
    const count = bar && add(bar, "span", {});
    const next = bar && list && add(bar, "a", { hidden: true });

    const show = () => {
      const read = load();
      const left = chapters.filter(({ name }) => !read.has(name));
      chapters.forEach(({ name }, i) => {
        ticks[i].innerHTML = read.has(name) ? ' \u2713<span class="visually-hidden"> read</span>' : "";
      });
      if (box) box.checked = read.has(here.name);
      if (!bar) return;
      const done = chapters.length - left.length;
      const how = list && !done ? " Tick the box at the end of each: only this browser remembers it." : "";
      const text = `You have read ${done} of ${chapters.length} chapters.${how}`;
      if (count.textContent !== text) count.textContent = text;
      if (!next) return;
      next.hidden = !left.length || !done;
      if (!next.hidden) {
        next.href = left[0].link.href;
        next.textContent = `Go on with ${left[0].link.firstChild.textContent.trim()}`;
      }
    };
    show();
    count?.setAttribute("role", "status"); // from now on a change is said, politely
    box?.addEventListener("change", () => {
      const read = load();
      if (box.checked) read.add(here.name);
      else read.delete(here.name);
      try {
        localStorage.setItem(key, JSON.stringify([...read]));
      } catch {} // full: the box falls back to what is stored
      show();
    });
    window.addEventListener("storage", show); // another tab
    window.addEventListener("pageshow", show); // the back button
  });
})();
