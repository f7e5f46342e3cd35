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

// Shows parts with data-live anew every so many seconds, unless somebody is at one of its forms.
(() => {
  async function renew(part) {
    if (document.hidden || part.contains(document.activeElement) || part.querySelector("[open]")) return;
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById(part.id);
    if (!fresh) return;
    part.replaceChildren(...fresh.childNodes);
    if (!fresh.dataset.live) location.reload();
  }
  document.addEventListener("DOMContentLoaded", () => {
    for (const part of document.querySelectorAll("[data-live]")) {
      setInterval(() => renew(part).catch(() => {}), 1000 * part.dataset.live);
    }
  });
})();
