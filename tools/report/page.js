"use strict";
// The report's charts. All texts of the data come from outside: as textContent in the page, and through plain() where Plotly draws them.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = id => document.getElementById(id);
  const make = (name, text, parent) => { const e = document.createElement(name); if (text !== undefined) e.textContent = text; if (parent) parent.append(e); return e; };
  // Plotly reads tags and entities in texts
  const plain = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const short = (text, n) => { const all = Array.from(text); return all.length > n ? all.slice(0, n - 1).join("") + "…" : text; };
  const percent = x => x == null ? "" : (100 * x).toFixed(x < 0.0995 ? 1 : 0) + " %";
  const unpack = (text, Type) => { const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0)); return new Type(bytes.buffer); };
  // Okabe and Ito's colours; yellow is darker, and black is grey, so that both stand out from light and dark
  const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c", "#b3a800"];
  const SYMBOLS = ["circle", "diamond", "square", "cross", "triangle-up", "star"], SYMBOLS_3D = ["circle", "diamond", "square", "cross", "square-open", "circle-open"], NONE = "x";
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const colour = i => COLOURS[i % COLOURS.length];
  const dark = matchMedia("(prefers-color-scheme: dark)"), narrow = matchMedia("(max-width: 600px)");
  const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const drawn = []; // to draw again in other colours, or in another width
  const fitting = (text, n) => short(text, narrow.matches ? 18 : n);
  const higher = (height, lines) => narrow.matches ? height + 20 * lines : height; // where the legend has a line for each

  function style(more) {
    const axis = { gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--fine"), automargin: true };
    const layout = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: css("--text"), family: "system-ui, DejaVu Sans, sans-serif", size: 13 },
                     margin: { l: 60, r: 20, t: 20, b: 50 }, hoverlabel: { align: "left" }, modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--fine"), activecolor: css("--accent") }, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, ...more };
    layout.xaxis = { ...axis, tickangle: 0, nticks: narrow.matches ? 4 : 0, ...(more.xaxis || {}) };
    layout.yaxis = { ...axis, ...(more.yaxis || {}) };
    return layout;
  }
  let mapButtons = []; // by name, so that none that would send anything anywhere is among them
  const draw = (id, traces, layout) => {
    if (layout.height) $(id).style.height = layout.height + "px"; // Plotly forgets its own when the window's size changes
    return Plotly.react(id, traces, style(layout), { responsive: true, displaylogo: false, displayModeBar: id === "map-chart", scrollZoom: id === "map-chart", modeBarButtons: [mapButtons] });
  };
  // ticks of a year or less are Mondays
  const dateAxis = weeks => {
    const [first, last] = [0, weeks.length - 1].map(i => Date.parse(weeks[i])), week = 7 * 864e5, count = (last - first) / week + 1;
    return { type: "date", ...(count <= 56 ? { tick0: weeks[0], dtick: week * Math.ceil(count / (narrow.matches ? 4 : 14)), tickformat: "%b %-d\n%Y" } : {}) };
  };
  const around = dates => { // a day on either side, so that one date alone has an axis, too
    const times = dates.map(d => Date.parse(d)), day = 864e5, room = Math.max(day, 0.05 * (Math.max(...times) - Math.min(...times)));
    return { range: [new Date(Math.min(...times) - room).toISOString(), new Date(Math.max(...times) + room).toISOString()] };
  };
  const show = (id, title) => { $(id).hidden = false; const a = make("a", title, $("nav")); a.href = "#" + id; };
  const keep = f => { drawn.push(f); f(); };
  if ($("words").querySelector("p, li")) show("words", "In short");
  else $("words").hidden = true; // without tags there is nothing to say

  const layers = data.layers.map((name, i) => ({ name, i })).filter(l => data.skills.some(s => s.l === l.i));
  const choose = (select, change) => {
    for (const l of layers) make("option", l.name, select).value = l.i;
    select.addEventListener("change", change);
  };

  // Rising and falling: dots and intervals
  function drawTrends() {
    const layer = +$("trend-layer").value, tested = data.skills.filter(s => s.b && s.l === layer);
    const surety = s => s.d > 0 ? s.b[1] : -s.b[2];
    const sure = d => tested.filter(s => s.d === d).sort((a, b) => surety(b) - surety(a)).slice(0, 15);
    const rest = tested.filter(s => !s.d).sort((a, b) => a.b[3] - b.b[3]);
    let chosen = [...sure(1), ...sure(-1)];
    chosen = [...chosen, ...rest.slice(0, Math.max(0, 12 - chosen.length))];
    const slope = s => s.e ? s.e * 1e9 : s.b[0];
    chosen.sort((a, b) => slope(a) - slope(b));
    const ends = chosen.flatMap(s => [s.b[0], s.b[1], s.b[2]].filter(x => x !== null).map(Math.abs)), slopes = chosen.filter(s => !s.e).map(s => Math.abs(s.b[0]));
    const far = Math.min(Math.max(0.05, ...ends), slopes.length ? 1.5 * Math.max(0.05, ...slopes) : Infinity) * 1.05;
    const at = s => Math.min(Math.max(slope(s), -0.98 * far), 0.98 * far); // without end: an arrow at the edge on its side
    const factor = x => "×" + Math.exp(x).toPrecision(3);
    const names = chosen.map((s, i) => i), traces = [[1, "rises", "#009e73", "triangle-up"], [-1, "falls", "#d55e00", "triangle-down"], [0, "cannot be told from chance", "#8c8c8c", "circle-open"]].map(([d, name, color, symbol]) => {
      const of = names.filter(i => chosen[i].d === d), bar = (k, sign) => of.map(i => Math.max(0, sign * ((chosen[i].b[k] ?? sign * 4 * far) - at(chosen[i]))));
      const arrow = s => s.e > 0 ? "triangle-right" : "triangle-left";
      return { type: "scatter", mode: "markers", name, x: of.map(i => at(chosen[i])), y: of, marker: { color, symbol: of.map(i => chosen[i].e ? arrow(chosen[i]) + (d ? "" : "-open") : symbol), size: of.map(i => chosen[i].e ? 14 : 11), opacity: 1 },
               error_x: { type: "data", symmetric: false, array: bar(2, 1), arrayminus: bar(1, -1), color, thickness: 2, width: 4 }, hovertemplate: "%{text}<extra></extra>",
               text: of.map(i => { const s = chosen[i]; return `<b>${plain(short(s.n, 60))}</b><br>odds ${s.e ? "without end" + (s.e > 0 ? ", upwards" : ", downwards") : factor(s.b[0])} a week (${s.b[1] === null ? "no end" : factor(s.b[1])} to ${s.b[2] === null ? "no end" : factor(s.b[2])})<br>${percent(s.b[6])} to ${percent(s.b[7])} of postings<br>p ${s.b[3].toPrecision(2)}, q ${s.b[4].toPrecision(2)}, dispersion ${s.b[5].toPrecision(2)}`; }) };
    }).filter(t => t.x.length);
    const steps = [0.1, 0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.2, 1.3, 1.5, 2, 3, 5, 10].filter(f => Math.abs(Math.log(f)) <= far);
    const labels = chosen.map(s => fitting(s.n, 34)), wide = $("trend-chart").clientWidth - 60 - 7 * Math.max(...labels.map(l => l.length));
    const spread = [1], room = far * 110 / Math.max(100, wide); // ticks from 1 outwards, as far apart as their texts need
    for (const side of [steps.filter(f => f > 1), steps.filter(f => f < 1).reverse()]) {
      let last = 0;
      for (const f of side) if (Math.abs(Math.log(f) - last) > room) spread.push(f), last = Math.log(f);
    }
    draw("trend-chart", traces, { height: Math.max(240, 110 + 26 * chosen.length), xaxis: { title: { text: narrow.matches ? "odds a week" : "change of the odds a week" }, range: [-far, far], zeroline: true, zerolinewidth: 2, zerolinecolor: css("--fine"), tickvals: spread.map(Math.log), ticktext: spread.map(f => "×" + f) },
      yaxis: { tickvals: names, ticktext: labels.map(plain), range: [-0.7, chosen.length - 0.3], showgrid: false, zeroline: false }, showlegend: true });
  }
  if (data.skills.some(s => s.b)) {
    show("trends", "Rising and falling");
    choose($("trend-layer"), drawTrends);
    $("trend-layer").value = (layers.find(l => data.skills.some(s => s.l === l.i && s.d)) || layers[0]).i;
    keep(drawTrends);
  }

  // Shares by week, with Wilson's intervals (engine/learn/trend.h)
  const Z = 1.959963984540054;
  function wilson(y, n) {
    const p = y / n, scale = 1 / (1 + Z * Z / n), centre = scale * (p + Z * Z / (2 * n)), half = scale * Z * Math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n));
    return [Math.max(0, centre - half), Math.min(1, centre + half)];
  }
  const charted = new Set();
  function drawTime() {
    const weeks = data.weeks.map((w, i) => i).filter(i => data.postings[i] > 0), traces = [], bands = []; // under all lines
    let at = 0;
    traces.push({ type: "bar", name: "postings of the week", x: weeks.map(i => data.weeks[i]), y: weeks.map(i => data.postings[i]), yaxis: "y2", marker: { color: css("--line") }, hovertemplate: "%{x}: %{y} postings<extra></extra>" });
    for (const s of charted) {
      const k = at++, name = plain(short(s.n, 40)), share = weeks.map(i => s.c[i] / data.postings[i]), range = weeks.map(i => wilson(s.c[i], data.postings[i])), x = weeks.map(i => data.weeks[i]);
      if (charted.size <= 6) {
        const fill = colour(k) + "22";
        bands.push({ type: "scatter", mode: "lines", x: [...x, ...[...x].reverse()], y: [...range.map(r => r[1]), ...range.map(r => r[0]).reverse()], fill: "toself", fillcolor: fill, line: { width: 0 }, hoverinfo: "skip", showlegend: false, legendgroup: "s" + k });
      }
      traces.push({ type: "scatter", mode: "lines+markers", name, legendgroup: "s" + k, x, y: share, line: { color: colour(k), width: 2, dash: DASHES[Math.floor(k / COLOURS.length) % 4] }, marker: { symbol: SYMBOLS[k % 6], size: 7, color: colour(k) },
                    text: weeks.map((i, j) => `${name}<br>week of ${data.weeks[i]}: ${s.c[i]} of ${data.postings[i]}, ${percent(share[j])} (${percent(range[j][0])} to ${percent(range[j][1])})`), hovertemplate: "%{text}<extra></extra>" });
    }
    draw("time-chart", [...bands, ...traces], { height: higher(460, 1 + charted.size), showlegend: true, xaxis: { ...dateAxis(data.weeks), anchor: "y2" }, yaxis: { title: { text: "share of postings" }, tickformat: ".0%", rangemode: "tozero", domain: [0.24, 1] },
      yaxis2: { domain: [0, 0.16], title: { text: "postings" }, gridcolor: css("--line"), rangemode: "tozero", automargin: true } });
  }
  const COLUMNS = [["skill", s => s.n.toLowerCase(), s => s.n], ["postings", s => s.t, s => s.t], ["first", s => s.b ? s.b[6] : -1, s => s.b ? percent(s.b[6]) : ""], ["last", s => s.b ? s.b[7] : -1, s => s.b ? percent(s.b[7]) : ""],
    ["odds a week", s => s.b ? s.e ? s.e * 1e9 : s.b[0] : 0, s => s.e ? (s.e > 0 ? "×∞" : "×0") : s.b ? "×" + Math.exp(s.b[0]).toFixed(3) : ""], ["q", s => s.b ? s.b[4] : 2, s => s.b ? s.b[4].toPrecision(2) : ""], ["trend", s => s.d || 0, s => s.d > 0 ? "▲ rises" : s.d < 0 ? "▼ falls" : ""]];
  let sortBy = 1, down = true;
  const TABLE = 200;
  function fillTable() {
    const layer = +$("table-layer").value, wanted = $("skill-search").value.trim().toLowerCase(), key = COLUMNS[sortBy][1];
    const found = data.skills.filter(s => s.l === layer && s.n.toLowerCase().includes(wanted));
    found.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) * (down ? -1 : 1));
    const body = $("skill-table").tBodies[0];
    body.replaceChildren();
    for (const s of found.slice(0, TABLE)) {
      const row = make("tr", undefined, body), cell = make("td", undefined, row), label = make("label", undefined, cell), box = make("input", undefined, label);
      box.type = "checkbox", box.checked = charted.has(s);
      label.append(" " + s.n);
      box.addEventListener("change", () => { box.checked ? charted.add(s) : charted.delete(s); drawTime(); });
      for (const c of COLUMNS.slice(1)) make("td", c[2](s), row).className = "number";
    }
    $("skill-count").textContent = `${found.length} skill${found.length === 1 ? "" : "s"}` + (found.length > TABLE ? `, ${TABLE} shown` : "");
    document.querySelectorAll("#skill-table th").forEach((th, i) => th.setAttribute("aria-sort", i === sortBy ? (down ? "descending" : "ascending") : "none"));
  }
  if (data.skills.length && data.weeks.length) {
    show("time", "Skills over time");
    for (const i of data.lines) charted.add(data.skills[i]);
    choose($("table-layer"), fillTable);
    $("table-layer").value = data.skills[data.lines[0]].l;
    $("skill-search").addEventListener("input", fillTable);
    $("clear").addEventListener("click", () => { charted.clear(); fillTable(); drawTime(); });
    COLUMNS.forEach((c, i) => {
      const th = make("th", undefined, $("skill-table").tHead.rows[0]), button = make("button", c[0], th);
      if (i) th.className = "number";
      button.type = "button";
      button.addEventListener("click", () => { down = sortBy === i ? !down : i > 0; sortBy = i; fillTable(); });
    });
    fillTable();
    keep(drawTime);
  }

  // Maps
  const maps = {};
  const points = { title: data.points.title, cluster: unpack(data.points.cluster, Int16Array), from: unpack(data.points.from, Int16Array), to: unpack(data.points.to, Int16Array) };
  for (const dims of [2, 3]) {
    const m = data.maps[dims];
    if (!m) continue;
    maps[dims] = { n: m.n, at: unpack(m.at, Float32Array), id: unpack(m.id, Int32Array) };
  }
  let dims = maps[2] ? 2 : 3, matches = null, mapDims = 0, lower = null, marked = -1;
  const clusterName = c => c < 0 ? "no cluster" : data.clusters[c][0];
  // without WebGL, which large maps need, some thousand points are drawn in another way, and none in three dimensions
  const gl = (() => { try { return Boolean(document.createElement("canvas").getContext("webgl")); } catch { return false; } })(), MOST_WITHOUT_GL = 4000;
  const dated = points.from.some(w => w >= 0) && data.mapWeeks.length > 1;
  const visible = p => !dated || (+$("from").value <= +$("to").value && ( points.from[p] < 0 || (points.from[p] <= +$("to").value && points.to[p] >= +$("from").value)));
  function hover(p) {
    let text = `<b>${plain(short(points.title[p], 90))}</b>`;
    if (data.clusters.length) text += "<br>" + plain(short(clusterName(points.cluster[p]), 60));
    if (points.from[p] >= 0) text += "<br>" + (points.from[p] === points.to[p] ? "week of " + data.mapWeeks[points.from[p]] : data.mapWeeks[points.from[p]] + " to " + data.mapWeeks[points.to[p]]);
    return text;
  }
  const hovers = [];
  const hoverOf = p => hovers[p] ?? (hovers[p] = hover(p));
  const apart = names => { // a cluster's name may not lie on another's: the largest come first, others move a little or go
    const chart = $("map-chart"), layout = chart._fullLayout, taken = [], out = [];
    for (const [x, y, text] of names) {
      const w = 7.2 * Array.from(text).length + 10, h = 20, at = [layout.xaxis.d2p(x), layout.yaxis.d2p(y)];
      if (at[0] < 0 || at[1] < 0 || at[0] > layout.xaxis._length || at[1] > layout.yaxis._length) continue;
      const px = Math.min(Math.max(at[0], w / 2), layout.xaxis._length - w / 2), py = Math.min(Math.max(at[1], h / 2), layout.yaxis._length - h / 2);
      for (const [dx, dy] of [[0, 0], [0, -22], [0, 22], [0, -44], [0, 44], [w / 2, 0], [-w / 2, 0], [w / 2, 22], [-w / 2, -22]]) {
        const box = [px + dx - w / 2, py + dy - h / 2, px + dx + w / 2, py + dy + h / 2];
        if (box[0] < 0 || box[1] < 0 || box[2] > layout.xaxis._length || box[3] > layout.yaxis._length || taken.some(t => box[0] < t[2] && t[0] < box[2] && box[1] < t[3] && t[1] < box[3])) continue;
        taken.push(box);
        out.push({ x, y, xshift: px + dx - at[0], yshift: at[1] - py - dy, text: plain(text), showarrow: false, captureevents: false, font: { size: 13, color: css("--text") }, bgcolor: css("--card"), opacity: 0.8, borderpad: 1 });
        break;
      }
    }
    return out;
  };
  function middle(values) { const v = Float32Array.from(values).sort(); return v[v.length >> 1]; }
  let centres = {};
  function centresOf(d) {
    if (centres[d]) return centres[d];
    const m = maps[d], of = data.clusters.map(() => []);
    for (let i = 0; i < m.n; i++) { const c = points.cluster[m.id[i]]; if (c >= 0) of[c].push(i); }
    return centres[d] = of.map(list => list.length ? [0, 1].map(k => middle(list.map(i => m.at[i * d + k]))) : null);
  }
  function drawMap() {
    const m = maps[dims], groups = new Map(), found = [], chart = $("map-chart"), flat = dims === 2 && !gl, step = flat ? Math.ceil(m.n / MOST_WITHOUT_GL) : 1;
    const many = data.clusters.length, named = Math.min(many, data.mostClusters); // the smallest are one: "others"
    let shown = 0;
    $("map-note").hidden = gl;
    $("map-note").textContent = "This browser has no WebGL: " + (dims === 3 ? "the map in three dimensions cannot be drawn; its points are in map-3d.csv." : step > 1 ? `one of ${step} points is drawn; all are in map.csv.` : "the map is drawn without it.");
    chart.hidden = dims === 3 && !gl;
    if (chart.hidden) { if (mapDims) Plotly.purge(chart); mapDims = 0; $("map-count").textContent = ""; return; }
    for (let i = 0; i < m.n; i++) {
      const p = m.id[i];
      if (!visible(p)) continue;
      shown++;
      const c = Math.min(points.cluster[p], named);
      if (!groups.has(c)) groups.set(c, []);
      if (step === 1 || Math.imul(i + 1, 0x9e3779b1) >>> 0 < 2 ** 32 / step) groups.get(c).push(i);
      if (matches && matches.has(p)) found.push(i);
    }
    const size = dims === 3 ? (m.n > 20000 ? 2 : 3) : m.n > 20000 ? 3 : m.n > 2000 ? 5 : 7;
    const trace = (list, name, marker) => {
      if (!list.length) return { type: dims === 3 ? "scatter3d" : flat ? "scatter" : "scattergl", mode: "markers", name, x: [NaN], y: [NaN], ...(dims === 3 ? { z: [NaN] } : {}), hoverinfo: "skip", marker }; // stays in the legend
      const t = { type: dims === 3 ? "scatter3d" : flat ? "scatter" : "scattergl", mode: "markers", name, x: new Float32Array(list.length), y: new Float32Array(list.length), text: list.map(i => hoverOf(m.id[i])), customdata: list.map(i => m.id[i]), hovertemplate: "%{text}<extra></extra>", marker };
      if (dims === 3) t.z = new Float32Array(list.length);
      list.forEach((i, k) => { t.x[k] = m.at[i * dims], t.y[k] = m.at[i * dims + 1]; if (dims === 3) t.z[k] = m.at[i * dims + 2]; });
      return t;
    };
    const traces = [], symbols = dims === 3 ? SYMBOLS_3D : SYMBOLS, opacity = matches ? 0.25 : 0.75;
    for (let c = 0; c < named; c++) // those without a point stay in the legend, in their order
      traces.push(trace(groups.get(c) || [], plain(short(clusterName(c), 36)), { color: colour(c), size, symbol: symbols[Math.floor(c / COLOURS.length) % 6], opacity }));
    if (named < many) traces.push(trace(groups.get(named) || [], `${many - named} others`, { color: "#777777", size: Math.max(2, 0.6 * size), symbol: "circle", opacity }));
    if (groups.has(-1) || !many) traces.push(trace(groups.get(-1) || [], many ? "no cluster" : "points", { color: many ? "#777777" : colour(0), size, symbol: many ? NONE : "circle", opacity }));
    if (found.length) traces.push(trace(flat ? found.slice(0, MOST_WITHOUT_GL) : found, "found", { color: css("--text"), size: size + 5, symbol: dims === 3 ? "diamond-open" : "circle-open", line: { width: 2, color: css("--text") }, opacity: 1 }));
    mapButtons = dims === 3 ? ["toImage", "zoom3d", "pan3d", "orbitRotation", "resetCameraDefault3d"] : ["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"];
    const bare = { showgrid: false, showline: false, zeroline: false, showticklabels: false, title: { text: "" } }, room = data.clusters.length > 0;
    const layout = { uirevision: "map" + dims, showlegend: room, legend: { itemsizing: "constant", ...(narrow.matches ? { orientation: "h", x: 0, y: -0.02, yanchor: "top" } : { orientation: "v", x: 1.01, y: 1 }) }, margin: { l: 10, r: 10, t: 40, b: 10 }, hovermode: "closest" };
    if (dims === 2) layout.xaxis = { ...bare }, layout.yaxis = { ...bare, scaleanchor: "x" }, layout.dragmode = "pan";
    else { const axis = { showticklabels: false, title: { text: "" }, gridcolor: css("--line"), zeroline: false, showbackground: false, showspikes: false }; layout.scene = { xaxis: axis, yaxis: axis, zaxis: axis, uirevision: "map3" }; }
    if (mapDims && mapDims !== dims) Plotly.purge(chart);
    const fresh = mapDims !== dims;
    mapDims = dims;
    if (!fresh && dims === 2) layout.annotations = chart.layout.annotations;
    draw("map-chart", traces, layout).then(() => {
      if (fresh && dims === 2) { nameClusters(); chart.on("plotly_relayout", change => { if (!("annotations" in change)) nameClusters(); }); }
    });
    $("map-count").textContent = `${shown.toLocaleString("en")} of ${m.n.toLocaleString("en")} points` + (matches ? `, ${found.length.toLocaleString("en")} found` : "");
    if (dated) {
      const [a, b] = [+$("from").value, +$("to").value];
      $("range").textContent = a <= b ? `weeks of ${data.mapWeeks[a]} to ${data.mapWeeks[b]}` : "no week: From is after To";
      for (const id of ["from", "to"]) $(id).setAttribute("aria-valuetext", "week of " + data.mapWeeks[+$(id).value]);
    }
  }
  function nameClusters() {
    if (mapDims !== 2) return;
    const at = centresOf(2), named = data.clusters.map((c, i) => at[i] && [at[i][0], at[i][1], short(c[0], 30)]).filter(Boolean), layout = $("map-chart")._fullLayout;
    const notes = apart(named);
    if (marked >= 0) { const m = maps[2], i = m.id.indexOf(marked); if (i >= 0) notes.push({ x: m.at[2 * i], y: m.at[2 * i + 1], text: plain(short(points.title[marked], 50)), arrowcolor: css("--text"), bgcolor: css("--back"), bordercolor: css("--text"), borderpad: 3 }); }
    if (layout) Plotly.relayout("map-chart", { annotations: notes });
  }
  let waiting = 0; // one drawing a frame at most, however fast the sliders move
  const soon = () => { if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; drawMap(); }); };
  function search() {
    const wanted = $("map-search").value.trim().toLowerCase();
    if (!lower) lower = points.title.map(t => t.toLowerCase());
    matches = null, marked = -1;
    $("found").replaceChildren();
    if (wanted) {
      matches = new Set();
      lower.forEach((t, p) => { if (t.includes(wanted)) matches.add(p); });
      let left = 20;
      for (const p of matches) {
        if (!left--) break;
        const button = make("button", points.title[p], make("li", undefined, $("found")));
        button.type = "button";
        button.title = points.title[p];
        button.addEventListener("click", () => { marked = p; if (mapDims !== 2 && maps[2]) { dims = 2; press(); drawMap(); } nameClusters(); });
      }
    }
    soon();
    if (mapDims === 2) nameClusters();
  }
  function press() { document.querySelectorAll("#dims button").forEach(b => b.setAttribute("aria-pressed", String(+b.dataset.dims === dims))); }
  if (maps[2] || maps[3]) {
    show("map", "Map");
    for (const d of [2, 3]) {
      if (!maps[d]) continue;
      const button = make("button", d + "-D", $("dims"));
      button.type = "button", button.dataset.dims = d;
      button.addEventListener("click", () => { dims = d; press(); drawMap(); });
    }
    press();
    $("dates").hidden = !dated;
    if (!dated) $("dates").style.display = "none";
    for (const id of ["from", "to"]) { $(id).max = Math.max(0, data.mapWeeks.length - 1); $(id).addEventListener("input", soon); }
    $("to").value = $("to").max;
    $("map-search").addEventListener("input", search);
    keep(() => { drawMap(); if (mapDims === 2 && $("map-chart")._fullLayout) nameClusters(); });
  }

  // Topics
  if (data.topics.length) {
    show("topics", "Topics");
    const body = $("topic-table").tBodies[0], words = k => data.topics[k][0].split(" ").slice(0, 3).join(" ");
    data.topics.forEach((t, k) => { const row = make("tr", undefined, body); make("td", String(k + 1), row); make("td", t[0], row); make("td", percent(t[1]), row).className = "number"; });
    if (data.topicWeeks.length > 1) {
      const order = data.topics.map((t, k) => k).sort((a, b) => (data.topics[b][1] || 0) - (data.topics[a][1] || 0)).slice(0, 12);
      keep(() => draw("topic-chart", order.map((k, i) => ({ type: "scatter", mode: "lines+markers", name: plain(`${k + 1}: ${words(k)}`), x: data.topicWeeks.map(w => w[0]), y: data.topicWeeks.map(w => w[k + 1]),
        line: { color: colour(i), dash: DASHES[Math.floor(i / COLOURS.length) % 4] }, marker: { symbol: SYMBOLS[i % 6], size: 7 }, hovertemplate: "%{fullData.name}<br>week of %{x}: %{y:.1%}<extra></extra>" })),
        { height: higher(460, order.length), xaxis: dateAxis(data.topicWeeks.map(w => w[0])), yaxis: { title: { text: "mean share of a posting" }, tickformat: ".0%", rangemode: "tozero" } }));
    } else if (data.topics.some(t => t[1] !== null)) {
      const order = data.topics.map((t, k) => k).sort((a, b) => data.topics[a][1] - data.topics[b][1]);
      keep(() => draw("topic-chart", [{ type: "bar", orientation: "h", x: order.map(k => data.topics[k][1]), y: order.map(k => plain(`${k + 1}: ${words(k)}`)), marker: { color: colour(0) }, hovertemplate: "%{y}: %{x:.1%}<extra></extra>" }],
        { height: Math.max(260, 80 + 24 * order.length), xaxis: { tickformat: ".0%", title: { text: "mean share of a posting" } } }));
    } else $("topic-chart").remove();
  }

  // Occupations
  if (data.occupations.length) {
    show("occupations", "Occupations");
    const list = [...data.occupations].reverse(), names = list.map((o, i) => i);
    $("occupation-note").textContent = `The most probable occupation of each posting, with 95 % Wilson intervals` + (data.allOccupations > list.length ? `; the ${list.length} most frequent of ${data.allOccupations}` : "") + ".";
    keep(() => draw("occupation-chart", [{ type: "bar", orientation: "h", x: list.map(o => o[2]), y: names, marker: { color: colour(0) }, error_x: { type: "data", symmetric: false, array: list.map(o => o[4] - o[2]), arrayminus: list.map(o => o[2] - o[3]), color: css("--text") },
      text: list.map(o => `${plain(o[0])}<br>${o[1]} postings, ${percent(o[2])}`), hovertemplate: "%{text}<extra></extra>", textposition: "none" }],
      { height: Math.max(220, 80 + 25 * list.length), xaxis: { tickformat: ".0%", title: { text: "share of postings" } }, yaxis: { tickvals: names, ticktext: list.map(o => plain(fitting(o[0], 44))), showgrid: false, zeroline: false } }));
  }

  // Quality
  if (data.quality.length) {
    show("quality", "Model quality");
    const body = $("quality-table").tBodies[0];
    for (const q of data.quality) {
      const row = make("tr", undefined, body);
      for (const text of [q[0].slice(0, 16).replace("T", " "), q[1], q[2].slice(0, 12) + (q[4] ? " (" + q[4].split("/").pop() + ")" : ""), q[3].slice(0, 12), q[5].split("/").pop()]) make("td", text, row);
      make("td", [q[6], q[7]].filter(Boolean).map(s => `${s[0]} ${s[1].toFixed(4)}`).join(", "), row).className = "number";
    }
    const measures = [...new Set(data.quality.flatMap(q => q[6] ? [q[1] + ", " + q[6][0]] : []))];
    if (measures.length) keep(() => draw("quality-chart", measures.map((name, k) => {
      const of = data.quality.filter(q => q[6] && q[1] + ", " + q[6][0] === name);
      return { type: "scatter", mode: "lines+markers", name: plain(name), x: of.map(q => q[0]), y: of.map(q => q[6][1]), line: { color: colour(k) }, marker: { size: 9, symbol: SYMBOLS[k % 6] },
               text: of.map(q => `${plain(q[2].slice(0, 12))}${q[4] ? "<br>" + plain(short(q[4].split("/").pop(), 50)) : ""}<br>parent ${plain(q[3].slice(0, 12)) || "none"}`), hovertemplate: "%{text}<br>%{x}: %{y:.4f}<extra></extra>" };
    }), { height: 380, xaxis: { type: "date", ...around(data.quality.filter(q => q[6]).map(q => q[0])) }, yaxis: { title: { text: "score" }, rangemode: "tozero" }, showlegend: true }));
    else $("quality-chart").remove();
  }

  // Labels
  if (data.labels.length || data.labelSums[0] || data.labelSums[4]) {
    show("labels", "Labels");
    const [sentences, spans, tokensIn, tokensOut, cost] = data.labelSums, count = x => x.toLocaleString("en");
    $("label-words").textContent = `${count(sentences)} labelled sentences with ${count(spans)} skills` + (tokensIn || cost ? `; ${count(tokensIn)} tokens sent, ${count(tokensOut)} received, cost ${cost.toFixed(2)}` + (sentences && cost ? `, ${(1000 * cost / sentences).toFixed(2)} for 1,000 sentences` : "") : "") + ".";
    if (data.labels.length) keep(() => draw("label-chart", [
      { type: "bar", name: "sentences, by the week of the posting", x: data.labels.map(l => l[0]), y: data.labels.map(l => l[1]), marker: { color: colour(0) } },
      ...(cost ? [{ type: "scatter", mode: "markers+lines", name: "cost, by the week of the bill", x: data.labels.filter(l => l[5]).map(l => l[0]), y: data.labels.filter(l => l[5]).map(l => l[5]), yaxis: "y2", line: { color: colour(1) }, marker: { size: 9, symbol: "diamond" } }] : [])],
      { height: 380, showlegend: true, xaxis: dateAxis(data.labels.map(l => l[0])), yaxis: { title: { text: "sentences" }, rangemode: "tozero" }, yaxis2: { overlaying: "y", side: "right", tickmode: "auto", nticks: 6, title: { text: "cost" }, rangemode: "tozero", showgrid: false, automargin: true } }));
    else $("label-chart").remove();
  }

  for (const media of [dark, narrow]) media.addEventListener("change", () => drawn.forEach(f => f()));
  document.documentElement.dataset.ready = "1";
})();
