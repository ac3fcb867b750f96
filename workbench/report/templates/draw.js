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
  // The dark figure is the light one with what differs put in its place.
  const patched = (whole, patch) => {
    if ("=" in patch) return patch["="];
    const copy = Array.isArray(whole) ? [...whole] : { ...whole };
    for (const [key, inner] of Object.entries(patch)) copy[key] = patched(whole[key], inner);
    return copy;
  };
  const draw = (theme) => {
    for (const [slug, figure] of Object.entries(FIGURES)) {
      const place = document.getElementById(slug);
      const light = JSON.parse(JSON.stringify(figure.light));
      const { data, layout } = theme === "dark" ? patched(light, figure.dark) : light;
      config.toImageButtonOptions.filename = slug;
      Plotly.react(place, data, layout, config);
    }
  };
  const follow = () => draw(dark.matches ? "dark" : "light");
  follow();
  dark.addEventListener("change", follow);
  window.addEventListener("beforeprint", () => draw("light"));
  window.addEventListener("afterprint", follow);
})();
