// Draws a scatter panel on a canvas: one point a series, its bars, its name, the front of the best.
// The last three rows of a series are its value, low and high. Points differ in colour, in shape
// and by the name beside them. Joined with plot.js and live.js into one module.

const SHAPES = [ // corners, on a scale where a circle has the radius 1
  null, // the circle
  [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]],
  [[0, -1.25], [1.15, 0.85], [-1.15, 0.85]],
  [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]],
  [[0, 1.25], [1.15, -0.85], [-1.15, -0.85]],
  [[-0.4, -1.2], [0.4, -1.2], [0.4, -0.4], [1.2, -0.4], [1.2, 0.4], [0.4, 0.4],
    [0.4, 1.2], [-0.4, 1.2], [-0.4, 0.4], [-1.2, 0.4], [-1.2, -0.4], [-0.4, -0.4]],
];
const RADIUS = 6;
const FRONT = "line: front of the point estimates";
const REACHES = [13, 24, 36, 50, 66], NEAR = 24; // from a point to its name, in pixels
const SIDES = [
  [0.7, -0.8], [0.7, 0.8], [-0.7, -0.8], [-0.7, 0.8], [1, 0], [-1, 0], [0, -1.2], [0, 1.2]];

function scatter(canvas, panel, curves, look) {
  const g = prepare(canvas);
  const spots = spotsOf(panel, curves);
  const words = spots.map((s) => `${s.name} ${digits(s.y[0])} at ${digits(s.x[0])}`);
  const text = `${panel.title}. ${panel.y_label} against ${panel.x_labels[0]}. ` +
    (words.length ? `Newest values: ${words.join(", ")}.` : "No point yet.");
  if (canvas.getAttribute("aria-label") !== text) canvas.setAttribute("aria-label", text);
  g.textBaseline = "middle";
  write(g, panel.title, 0, 10, look.ink, BOLD);
  write(g, panel.y_label, 0, 34, look.muted);
  if (!spots.length) {
    return write(g, "Waiting for the first figures …", 0, TOP + 40, look.muted);
  }
  write(g, FRONT, g.width, 34, look.muted, FONT, "right");
  const log = Math.max(...spots.map((s) => s.x[0])) > 10 * Math.min(...spots.map((s) => s.x[0]));
  const along = log ? Math.log : (x) => x;
  const [xLow, xHigh] = padded(spots.flatMap((s) => s.x).filter((x) => !log || x > 0).map(along));
  const [yLow, yHigh] = padded(spots.flatMap((s) => s.y));
  const yTicks = ticks(yLow, yHigh, 6).filter((y) => y >= yLow && y <= yHigh);
  const yTexts = texts(yTicks);
  const left = Math.max(...yTexts.map((each) => g.measureText(each).width)) + 10;
  const box = { left, right: g.width - 4, top: TOP, bottom: g.height - BOTTOM };
  const scale = {
    x: (x) => box.left + ((along(x) - xLow) / (xHigh - xLow)) * (box.right - box.left),
    y: (y) => box.bottom - ((y - yLow) / (yHigh - yLow)) * (box.bottom - box.top),
  };
  const xTicks = (log ? logTicks(Math.exp(xLow), Math.exp(xHigh)) : ticks(xLow, xHigh, 6))
    .filter((x) => along(x) >= xLow && along(x) <= xHigh);
  frame(g, box, look, scale, [xTicks, log ? xTicks.map(String) : texts(xTicks)], [yTicks, yTexts]);
  const xLabel = panel.x_labels[0] + (log ? " (log scale)" : "");
  write(g, xLabel, (box.left + box.right) / 2, box.bottom + 38, look.muted, FONT, "center");
  spots.forEach((spot) => (spot.at = [scale.x(spot.x[0]), scale.y(spot.y[0])]));
  const lines = front(spots, box, panel.higher_is_better);
  lines.forEach((step) => segment(g, ...step, look.muted));
  lines.push(...spots.flatMap((spot) => drawBars(g, spot, scale, look)));
  spots.forEach((spot) => mark(g, spot, look));
  g.font = BOLD;
  spots.forEach((spot) => (spot.width = g.measureText(spot.name).width));
  place(spots, lines, box).forEach((name) => {
    if (name.far) segment(g, ...name.line, look.muted);
    write(g, name.text, ...name.middle, look.ink, BOLD, "center");
  });
}

function spotsOf(panel, curves) {
  const spots = panel.series.map((name, index) => (
    { name, index, x: curves[index].x[0].slice(-3), y: curves[index].y.slice(-3) }));
  return spots.filter((spot) => spot.y.length);
}

function digits(value) {
  return Number(value.toPrecision(4));
}

function padded(values) {
  const [low, high] = range([values], false);
  return [low - 0.08 * (high - low), high + 0.08 * (high - low)];
}

function logTicks(low, high) {
  const result = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    result.push(...[1, 2, 5].map((factor) => Number((factor * 10 ** power).toPrecision(1))));
  }
  return result;
}

// The steps of the best that can be had within each time, as (x, y, x, y). Two points alike are
// both on the front, as in compare/front.py.
function front(spots, box, higherIsBetter) {
  const sign = higherIsBetter ? 1 : -1;
  const sorted = [...spots].sort((a, b) => a.x[0] - b.x[0] || sign * (b.y[0] - a.y[0]));
  const steps = [];
  let cost = Infinity, best = -Infinity, height = higherIsBetter ? box.bottom : box.top;
  for (const { x, y, at: [px, py] } of sorted) {
    const worth = sign * y[0];
    if (worth < best || (worth === best && x[0] !== cost)) continue;
    if (steps.length) steps.at(-1)[2] = px;
    steps.push([px, height, px, py], [px, py, box.right, py]);
    [cost, best, height] = [x[0], worth, py];
  }
  return steps;
}

function drawBars(g, spot, scale, look) {
  const { x, y, at: [px, py] } = spot;
  const bars = [];
  if (x.every(Number.isFinite)) bars.push([scale.x(x[1]), py, scale.x(x[2]), py]);
  if (y.every(Number.isFinite)) bars.push([px, scale.y(y[2]), px, scale.y(y[1])]);
  g.lineWidth = 2;
  g.globalAlpha = 0.6;
  bars.forEach((bar) => segment(g, ...bar, look.colors[spot.index % look.colors.length]));
  g.globalAlpha = 1;
  g.lineWidth = 1;
  return bars;
}

function mark(g, { index, at: [px, py] }, look) {
  const shape = SHAPES[index % SHAPES.length];
  g.fillStyle = look.colors[index % look.colors.length];
  g.beginPath();
  if (shape) shape.forEach(([x, y]) => g.lineTo(px + RADIUS * x, py + RADIUS * y));
  else g.arc(px, py, RADIUS, 0, 2 * Math.PI);
  g.fill();
}

// -- names beside the points ---------------------------------------------------------------------

// Of forty places around a point, the one where its name hides least, the nearest first.
function place(spots, lines, box) {
  const area = [box.left, box.top, box.right, box.bottom];
  const marks = spots.map(({ at: [x, y] }) => around(x, y, 2 * RADIUS, 2 * RADIUS));
  const taken = [];
  return spots.map(({ name, width, at: [x, y] }) => {
    let best = { cost: Infinity };
    REACHES.flatMap((reach) => SIDES.map((side) => [reach, ...side])).forEach(
      ([reach, right, down], order) => {
        const middle = [x + right * reach + (Math.sign(right) * width) / 2, y + down * reach];
        const mine = around(...middle, width, LINE - 2);
        const cost = 100 * leaves(mine, area) + 30 * met(mine, taken) + 20 * met(mine, marks) +
          met(mine, lines) + 0.02 * order;
        if (cost < best.cost) best = { cost, middle, mine, right, far: reach > NEAR };
      });
    taken.push(best.mine);
    const edge = best.middle[0] - (Math.sign(best.right) * (width + 4)) / 2;
    return { ...best, text: name, line: [x, y, edge, best.middle[1]] };
  });
}

function around(x, y, width, height) {
  return [x - width / 2, y - height / 2, x + width / 2, y + height / 2];
}

function leaves(a, area) {
  return a[0] < area[0] || a[1] < area[1] || a[2] > area[2] || a[3] > area[3];
}

function met(a, others) {
  return others.filter((b) => a[0] < Math.max(b[0], b[2]) && Math.min(b[0], b[2]) < a[2] &&
    a[1] < Math.max(b[1], b[3]) && Math.min(b[1], b[3]) < a[3]).length;
}
