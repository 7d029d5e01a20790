// Draws one panel of curves on a canvas. Joined with live.js into one module.
// Lines differ in colour, in dash and by the name at their end, so none of the three is needed alone.

const COLORS = {
  light: ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"],
  dark: ["#56B4E9", "#F0803C", "#2BBD94", "#E3A0C4", "#F0E442", "#9CCBEA", "#FFFFFF"],
};
const DASHES = [[], [9, 4], [2.5, 3], [11, 4, 2.5, 4], [5, 3], [14, 5], [2.5, 6]];
const FONT = "14px system-ui, sans-serif";
const BOLD = "600 15px system-ui, sans-serif";
const TOP = 58, BOTTOM = 50, LINE = 19, SWATCH = 26;
const LANE_TOP = 28, LANE_BOTTOM = 24;

// `lanes`: the bands of all lanes, which share their scale.
function draw(canvas, panel, curves, axis, look, lanes) {
  if (panel.kind === "scatter") return scatter(canvas, panel, curves, look);
  const lane = panel.kind === "lane";
  const choice = Math.min(axis, panel.x_labels.length - 1);
  const g = prepare(canvas);
  describe(canvas, panel, curves, choice);
  const filled = panel.kind !== "lines";
  const lines = filled ? stack(curves, choice) : plain(curves, choice);
  g.textBaseline = "middle";
  write(g, panel.title, 0, 10, look.ink, BOLD);
  if (lane) write(g, panel.y_label, titleWidth(g, panel.title) + 10, 10, look.muted);
  else write(g, panel.y_label, 0, 34, look.muted);
  if (!lines.some((line) => line.y.length)) {
    return write(g, "Waiting for the first figures …", 0, lane ? 50 : TOP + 40, look.muted);
  }
  const all = lane ? lanes : lines;
  const yTicks = ticks(...range(all.map((line) => line.y), filled), lane ? 2 : 5);
  const [xLow, xHigh] = range(all.map((line) => line.x), true);
  const whole = lines.every((line) => line.x.every(Number.isInteger)); // there is no half step
  const xTicks = ticks(xLow, xHigh, 6).filter((x) => x <= xHigh && (!whole || Number.isInteger(x)));
  const yTexts = texts(yTicks), xTexts = texts(xTicks);
  const left = Math.max(...yTexts.map((text) => g.measureText(text).width)) + 10;
  const room = Math.min(labelRoom(g, panel.series), 0.4 * g.width);
  const box = { left, right: g.width - room, top: TOP, bottom: g.height - BOTTOM };
  if (lane) Object.assign(box, { top: LANE_TOP, bottom: g.height - LANE_BOTTOM });
  const yLow = yTicks[0], yHigh = yTicks[yTicks.length - 1];
  const scale = {
    x: (x) => box.left + ((x - xLow) / (xHigh - xLow || 1)) * (box.right - box.left),
    y: (y) => box.bottom - ((y - yLow) / (yHigh - yLow || 1)) * (box.bottom - box.top),
  };
  frame(g, box, look, scale, [xTicks, xTexts], [yTicks, yTexts]);
  const xLabel = panel.x_labels[choice];
  if (lane) write(g, xLabel, box.right + 10, box.bottom + 15, look.muted);
  else write(g, xLabel, (box.left + box.right) / 2, box.bottom + 38, look.muted, FONT, "center");
  if (filled) bands(g, lines, scale, look);
  else lines.forEach((line, i) => curve(g, line, i, scale, look));
  names(g, panel, lines, box, scale, look);
}

function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, height);
  g.font = FONT;
  g.lineJoin = "round";
  return Object.assign(g, { width, height });
}

function describe(canvas, panel, curves, choice) {
  const ends = panel.series.map((name, i) => {
    const y = curves[i].y;
    return y.length ? `${name} ${Number(y[y.length - 1].toPrecision(3))}` : `${name} no point yet`;
  });
  const text = `${panel.title}. ${panel.y_label} against ${panel.x_labels[choice]}. ` +
    `Newest values: ${ends.join(", ")}.`;
  if (canvas.getAttribute("aria-label") !== text) canvas.setAttribute("aria-label", text);
}

// -- numbers -------------------------------------------------------------------------------------

function plain(curves, choice) {
  return curves.map((c) => ({ x: c.x[choice], y: c.y }));
}

function stack(curves, choice) {
  const length = Math.min(...curves.map((c) => c.y.length));
  let below = new Array(length).fill(0);
  return curves.map((c) => {
    const y = below.map((base, i) => base + c.y[i]);
    const line = { x: c.x[choice].slice(0, length), y, below };
    below = y;
    return line;
  });
}

function laneLines(panels, curves) {
  return panels.flatMap((panel, i) => (panel.kind === "lane" ? stack(curves[i], 0) : []));
}

function range(arrays, fromZero) {
  let low = Infinity, high = -Infinity;
  for (const array of arrays) {
    for (const value of array) {
      if (Number.isFinite(value)) {
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    }
  }
  if (low > high) return [0, 1];
  if (fromZero && low > 0) low = 0;
  return low === high ? [low, low + (Math.abs(low) || 1)] : [low, high];
}

function ticks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const result = [];
  for (let i = Math.floor(low / step + 1e-6); i <= Math.ceil(high / step - 1e-6); i++) {
    result.push(Number((i * step).toPrecision(12)));
  }
  return result;
}

function texts(values) {
  const step = Math.abs(values[1] - values[0]) || 1;
  const digits = Math.min(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), 8);
  return values.map((value) =>
    value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
}

// -- ink -----------------------------------------------------------------------------------------

function write(g, text, x, y, color, font = FONT, align = "left") {
  g.font = font;
  g.fillStyle = color;
  g.textAlign = align;
  g.fillText(text, x, y);
  g.font = FONT;
}

function frame(g, box, look, scale, [xTicks, xTexts], [yTicks, yTexts]) {
  g.setLineDash([]);
  g.lineWidth = 1;
  yTicks.forEach((value, i) => {
    const y = Math.round(scale.y(value)) + 0.5;
    segment(g, box.left, y, box.right, y, look.line);
    write(g, yTexts[i], box.left - 8, y, look.muted, FONT, "right");
  });
  const bottom = Math.round(box.bottom) + 0.5;
  segment(g, box.left, bottom, box.right, bottom, look.muted);
  xTicks.forEach((value, i) => {
    const x = Math.round(scale.x(value)) + 0.5;
    segment(g, x, box.bottom, x, box.bottom + 4, look.muted);
    write(g, xTexts[i], x, box.bottom + 15, look.muted, FONT, "center");
  });
}

function titleWidth(g, title) {
  g.font = BOLD;
  const { width } = g.measureText(title);
  g.font = FONT;
  return width;
}

function segment(g, x1, y1, x2, y2, color) {
  g.strokeStyle = color;
  g.beginPath();
  g.moveTo(x1, y1);
  g.lineTo(x2, y2);
  g.stroke();
}

function curve(g, line, index, scale, look) {
  const color = look.colors[index % look.colors.length];
  g.strokeStyle = g.fillStyle = color;
  const newest = line.y.findLastIndex((y) => !Number.isFinite(y)) + 1; // after the last gap
  g.globalAlpha = 0.35;
  trace(g, line, 0, newest, index, scale);
  g.globalAlpha = 1;
  trace(g, line, newest, line.y.length, index, scale);
  const every = line.y.length <= 30 ? 0 : line.y.length - 1; // few points: mark each
  for (let i = every; i < line.y.length; i++) {
    g.globalAlpha = i < newest ? 0.35 : 1;
    if (Number.isFinite(line.y[i])) dot(g, scale.x(line.x[i]), scale.y(line.y[i]));
  }
  g.globalAlpha = 1;
}

function trace(g, line, from, to, index, scale) {
  g.lineWidth = 2.4;
  g.setLineDash(DASHES[index % DASHES.length]);
  g.beginPath();
  let pen = false;
  for (let i = from; i < to; i++) {
    const known = Number.isFinite(line.y[i]);
    if (known && pen) g.lineTo(scale.x(line.x[i]), scale.y(line.y[i]));
    if (known && !pen) g.moveTo(scale.x(line.x[i]), scale.y(line.y[i]));
    pen = known;
  }
  g.stroke();
  g.setLineDash([]);
}

function dot(g, x, y) {
  g.beginPath();
  g.arc(x, y, 3.6, 0, 2 * Math.PI);
  g.fill();
}

function bands(g, lines, scale, look) {
  lines.forEach((line, index) => {
    if (!line.y.length) return;
    g.fillStyle = look.colors[index % look.colors.length];
    g.beginPath();
    line.y.forEach((y, i) => g.lineTo(scale.x(line.x[i]), scale.y(y)));
    for (let i = line.y.length - 1; i >= 0; i--) g.lineTo(scale.x(line.x[i]), scale.y(line.below[i]));
    g.fill();
  });
}

// -- names at the ends of the lines --------------------------------------------------------------

function labelRoom(g, series) {
  return 14 + SWATCH + Math.max(...series.map((name) => g.measureText(name).width));
}

function names(g, panel, lines, box, scale, look) {
  const filled = panel.kind !== "lines";
  const labels = [];
  lines.forEach((line, index) => {
    const last = line.y.findLastIndex(Number.isFinite);
    if (last < 0) return;
    const y = line.below ? (line.y[last] + line.below[last]) / 2 : line.y[last];
    labels.push({ index, y: scale.y(y) });
  });
  labels.sort((a, b) => a.y - b.y);
  labels.forEach((label, i) => {
    if (i) label.y = Math.max(label.y, labels[i - 1].y + LINE);
  });
  let floor = box.bottom;
  labels.toReversed().forEach((label) => {
    label.y = Math.min(label.y, floor);
    floor = label.y - LINE;
  });
  labels.forEach(({ index, y }) => {
    const x = box.right + 10;
    g.strokeStyle = g.fillStyle = look.colors[index % look.colors.length];
    if (filled) {
      g.fillRect(x, y - 6, 14, 12);
    } else {
      g.lineWidth = 2.4;
      g.setLineDash(DASHES[index % DASHES.length]);
      g.beginPath();
      g.moveTo(x, y);
      g.lineTo(x + SWATCH - 5, y);
      g.stroke();
      g.setLineDash([]);
    }
    const start = x + (filled ? 19 : SWATCH);
    write(g, fit(g, panel.series[index], g.width - start), start, y, look.ink);
  });
}

function fit(g, text, width) {
  if (g.measureText(text).width <= width) return text;
  let short = text;
  while (short && g.measureText(`${short}…`).width > width) short = short.slice(0, -1);
  return `${short}…`;
}
