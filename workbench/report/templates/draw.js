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
  const draw = (theme) => {
    for (const [slug, figure] of Object.entries(FIGURES)) {
      const place = document.getElementById(slug);
      const { data, layout } = figure[theme];
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
