// Draws every figure in the theme of the reader's screen; on paper always the light one.
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const config = {
    responsive: true,
    displaylogo: false,
    // What was measured leaves the page only as a file.
    modeBarButtonsToRemove: ["select2d", "lasso2d", "sendChartToCloud"],
    plotlyServerURL: "",
    toImageButtonOptions: { format: "svg" },
  };
  // What stands in several places is said once; each place gets a copy of its own.
  const whole = (value) => {
    if (value === null || typeof value !== "object") return value;
    if (Array.isArray(value)) return value.map(whole);
    if ("&" in value) return whole(SHARED[value["&"]]);
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, whole(inner)]));
  };
  // The dark figure is the light one with what differs put in its place.
  const patched = (light, patch) => {
    if ("=" in patch) return patch["="];
    const copy = Array.isArray(light) ? [...light] : { ...light };
    for (const [key, inner] of Object.entries(patch)) copy[key] = patched(light[key], inner);
    return copy;
  };
  // Panels beside one another stand below one another, so that a phone scrolls one way only.
  const PANEL = 270, GAP = 92, ENTRY = 24;
  const stacked = (data, layout) => {
    const bottom = (name) => (layout[name.replace("x", "y")].domain || [0, 1])[0];
    const names = Object.keys(layout).filter((name) => /^xaxis\d*$/.test(name) && layout[name].domain);
    if (new Set(names.map((name) => layout[name].domain[0])).size < 2) return;
    names.sort((a, b) => bottom(b) - bottom(a) || layout[a].domain[0] - layout[b].domain[0]);
    const entries = data.filter((trace) => trace.name && trace.showlegend !== false).length;
    const whole = names.length * (PANEL + GAP) - GAP;
    const margin = { t: 48, b: 56, ...layout.margin };
    layout.margin = { ...margin, l: 64 };
    layout.height = whole + margin.t + margin.b + ENTRY * entries;
    Object.assign(layout.legend, { y: -66 / whole, itemwidth: 30, font: { size: 11 } });
    const tops = {};
    names.forEach((name, row) => {
      const top = 1 - (row * (PANEL + GAP)) / whole;
      const upright = layout[name.replace("x", "y")];
      layout[name].domain = [0, 1];
      upright.domain = [Math.max(0, top - PANEL / whole), top];
      upright.showticklabels = true;
      tops[`${name.replace("axis", "")} domain`] = top;
    });
    for (const note of layout.annotations || []) {
      if (note.yref === "paper" && note.xref in tops) note.y = tops[note.xref];
    }
  };
  // A phone has no width for names at the ends of lines: its legend has them.
  const bare = (layout) => {
    const notes = layout.annotations || [];
    layout.annotations = notes.filter((note) => note.name !== "line end");
    if (layout.annotations.length < notes.length) layout.margin = { ...layout.margin, r: 16 };
  };
  // What is wider than a phone goes on in a second line.
  const LONG = 44;
  const folded = (data, layout) => {
    for (const trace of data) {
      if (trace.name && trace.name.length > LONG) trace.name = trace.name.replace(" (", "<br>(");
    }
    for (const note of layout.annotations || []) {
      if (note.text.length > LONG) note.text = note.text.replace("   <b>", "<br><b>");
      note.font = { ...note.font, size: Math.min(11, note.font?.size || 11) };
      note.align = "left";
    }
  };
  // Pixels across a sheet of A4; the first page's figure is drawn as for report.pdf, then scaled.
  const PAPER = 1000, FIRST = 800;
  const drawOne = (slug, theme, narrow, paper) => {
    const figure = whole(FIGURES[slug]);
    const place = document.getElementById(slug);
    const { data, layout } = theme === "dark" ? patched(figure.light, figure.dark) : figure.light;
    layout.template = TEMPLATE;
    if (narrow) {
      bare(layout);
      stacked(data, layout);
      folded(data, layout);
    }
    if (paper) layout.width = slug === "first" ? FIRST : PAPER;
    if (layout.height) place.style.height = `${layout.height}px`;
    config.toImageButtonOptions.filename = slug;
    Plotly.react(place, data, layout, config);
  };
  // A page of forty figures opens at once: each is drawn when the reader comes near it.
  const drawn = new Set();
  const phone = window.matchMedia("(max-width: 640px)");
  const drawHere = (slug) => drawOne(slug, dark.matches ? "dark" : "light", phone.matches);
  const near = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      drawn.add(target.id);
      drawHere(target.id);
    }
  }, { rootMargin: "1200px 0px" });
  for (const slug of Object.keys(FIGURES)) near.observe(document.getElementById(slug));
  const follow = () => drawn.forEach(drawHere);
  dark.addEventListener("change", follow);
  phone.addEventListener("change", follow);
  // Paper has no lines to open: what they fold stands below them.
  const folds = document.querySelectorAll("details");
  window.addEventListener("beforeprint", () => {
    folds.forEach((fold) => fold.toggleAttribute("open", true));
    for (const slug of Object.keys(FIGURES)) {
      drawn.add(slug);
      drawOne(slug, "light", false, true);
    }
  });
  window.addEventListener("afterprint", () => {
    folds.forEach((fold) => fold.toggleAttribute("open", false));
    follow();
    for (const slug of drawn) Plotly.Plots.resize(document.getElementById(slug));
  });
})();
