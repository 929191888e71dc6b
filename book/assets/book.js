/* A formula that is wider than its column scrolls: let the keyboard reach it, and only then. */
(() => {
  const mark = () => {
    for (const box of document.querySelectorAll("mjx-container[display]")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  window.addEventListener("resize", mark);
  window.addEventListener("load", async () => {
    await window.MathJax?.startup?.promise;
    await document.fonts.ready;
    mark();
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
