// Draws the page's plots in its own colors, and again when the browser turns light or dark.
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const merge = (base, own) => {
    for (const [key, value] of Object.entries(own)) {
      const isObject = value && typeof value === "object" && !Array.isArray(value);
      base[key] = isObject ? merge({ ...base[key] }, value) : value;
    }
    return base;
  };

  function draw(canvas) {
    const figure = JSON.parse(document.getElementById(canvas.dataset.figure).textContent);
    const axis = { gridcolor: color("--line"), zerolinecolor: color("--line"), automargin: true };
    const layout = merge({
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: color("--text"), family: "system-ui, sans-serif" },
      colorway: [0, 1, 2, 3, 4].map((number) => color(`--plot-${number}`)),
      margin: { t: 24, r: 16 }, legend: { orientation: "h" }, xaxis: axis, yaxis: axis,
    }, figure.layout);
    for (const trace of figure.data) {
      if (trace.palette === undefined) continue;
      const own = color(`--plot-${trace.palette}`);
      trace.line = { color: own, ...trace.line };
      trace.marker = { color: own, ...trace.marker };
      if (trace.fill) trace.fillcolor = `${own}33`;
      if (trace.error_y) trace.error_y.color = own;
      if (trace.type === "heatmap") trace.colorscale = [[0, color("--back")], [1, own]];
    }
    const options = { responsive: true, displaylogo: false, displayModeBar: false };
    Plotly.react(canvas, figure.data, layout, options);
  }

  const drawAll = () => document.querySelectorAll(".canvas").forEach(draw);
  document.addEventListener("DOMContentLoaded", () => {
    if (!window.Plotly) return;
    drawAll();
    dark.addEventListener("change", drawAll);
  });
})();
