// The browser's side of a live view. The kernel sends rows (panel, series, x, x2, y) and a status;
// everything that is drawn comes from them. Rows are kept with the model, not with a view, because
// a view is made anew whenever its output is shown again.

const FLOATS = 5;
const DONE = ["finished", "stopped", "failed"];

export default () => {
  const store = { curves: [], rows: 0, status: {}, axis: 0, asked: "", views: new Set() };

  const add = (bytes, first) => {
    const copy = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
    const values = new Float32Array(copy);
    const skip = store.rows - first; // rows that are here already
    for (let i = skip * FLOATS; i < values.length; i += FLOATS) {
      const curve = store.curves[values[i]][values[i + 1]];
      curve.x[0].push(values[i + 2]);
      curve.x[1].push(values[i + 3]);
      curve.y.push(values[i + 4]);
    }
    store.rows = Math.max(store.rows, first + values.length / FLOATS);
  };

  const receive = (model, message, buffers) => {
    if (message.kind !== "update") return;
    if (message.first > store.rows) return model.send({ kind: "resend" }); // some were missed
    add(buffers[0], message.first);
    store.status = message.status;
    if (DONE.includes(store.status.state) || store.status.state === store.asked) store.asked = "";
    store.views.forEach((view) => view.refresh());
  };

  return {
    initialize({ model }) {
      store.curves = model.get("panels").map((panel) =>
        panel.series.map(() => ({ x: [[], []], y: [] })));
      store.status = model.get("status");
      add(model.get("history"), 0);
      model.on("msg:custom", (message, buffers) => receive(model, message, buffers));
    },
    render({ model, el }) {
      const view = makeView(model, el, store);
      store.views.add(view);
      view.refresh();
      return () => {
        store.views.delete(view);
        view.close();
      };
    },
  };
};

function makeView(model, el, store) {
  const panels = model.get("panels");
  const page = build(panels);
  el.append(page.root);
  let frame = 0;

  const refresh = () => {
    showStatus(page, store);
    page.axis.forEach((button, i) => button.setAttribute("aria-pressed", store.axis === i));
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      const look = readLook(page.root);
      const lanes = laneLines(panels, store.curves);
      panels.forEach((panel, i) =>
        draw(page.canvases[i], panel, store.curves[i], store.axis, look, lanes));
      page.root.dataset.rows = store.rows;
    });
  };
  const send = (kind, expected) => {
    store.asked = expected;
    model.send({ kind });
    store.views.forEach((view) => view.refresh());
  };
  page.pause.addEventListener("click", () => {
    const paused = store.status.state === "paused";
    send(paused ? "resume" : "pause", paused ? "running" : "paused");
  });
  page.stop.addEventListener("click", () => send("stop", "stopped"));
  page.axis.forEach((button, i) => button.addEventListener("click", () => {
    store.axis = i;
    store.views.forEach((view) => view.refresh());
  }));

  const size = new ResizeObserver(refresh);
  size.observe(page.root);
  const theme = new MutationObserver(() => [0, 100, 600].forEach((ms) => setTimeout(refresh, ms)));
  theme.observe(document.body, { attributes: true });
  return {
    refresh,
    close() {
      size.disconnect();
      theme.disconnect();
      cancelAnimationFrame(frame);
    },
  };
}

// -- the elements around the curves ----------------------------------------------------------

function build(panels) {
  const root = makeRoot("labkit-live", "Live view of the work");
  const bar = make("div", "lk-bar", root);
  const state = make("div", "lk-state", bar);
  const words = make("div", "lk-words", state);
  const track = make("div", "lk-track", state, {
    role: "progressbar", "aria-label": "Progress", "aria-valuemin": 0, "aria-valuemax": 100,
  });
  const fill = make("div", "lk-fill", track);
  const toggle = panels.find((panel) => panel.x_labels.length > 1)?.x_labels ?? [];
  const group = make("div", "lk-axis", bar, { role: "group", "aria-label": "Horizontal axis" });
  group.hidden = toggle.length === 0;
  const axis = toggle.map((label) => {
    const button = make("button", "", group, { type: "button" });
    button.textContent = label;
    return button;
  });
  const pause = make("button", "lk-run lk-pause", bar, { type: "button" });
  const stop = make("button", "lk-stop", bar, { type: "button" });
  stop.textContent = "Stop";
  const grid = make("div", `lk-panels${panels.length > 1 ? " lk-several" : ""}`, root);
  const lanes = make("div", "lk-lanes", null);
  const canvases = panels.map((panel) =>
    make("canvas", `lk-${panel.kind}`, panel.kind === "lane" ? lanes : grid, { role: "img" }));
  if (lanes.children.length) {
    grid.append(lanes);
    grid.style.setProperty("--lk-lanes", lanes.children.length);
  }
  const scroll = make("div", "lk-scroll", root);
  const table = make("table", "", scroll, { "aria-label": "Figures so far" });
  const note = make("p", "", root);
  const error = make("p", "lk-error", root, { role: "alert" });
  const spoken = make("div", "lk-hidden", root, { "aria-live": "polite" });
  return { root, words, track, fill, axis, pause, stop, canvases, table, note, error, spoken };
}

function showStatus(page, store) {
  const { state, progress, minutes_left: left, headers, table, note, error } = store.status;
  const done = DONE.includes(state);
  const waiting = { paused: "Pausing …", running: "Continuing …", stopped: "Stopping …" };
  const word = waiting[store.asked] ?? state.charAt(0).toUpperCase() + state.slice(1);
  const percent = Math.floor(100 * progress);
  const rest = state !== "running" || left === null ? "" : ` · ${timeLeft(left)}`;
  setText(page.words, progress === null ? word : `${word} · ${percent} %${rest}`);
  setText(page.spoken, word);
  page.track.hidden = progress === null; // nobody knows how much there is to do
  page.fill.style.width = `${100 * progress}%`;
  page.track.setAttribute("aria-valuenow", percent);
  page.root.dataset.state = state;
  page.pause.disabled = page.stop.disabled = done || store.asked === "stopped";
  setText(page.pause, state === "paused" ? "Continue" : "Pause");
  setText(page.note, note);
  setText(page.error, error);
  page.table.hidden = table.length === 0;
  const stamp = JSON.stringify([headers, table]);
  if (page.table.dataset.stamp === stamp) return;
  page.table.dataset.stamp = stamp;
  page.table.replaceChildren();
  const head = make("tr", "", make("thead", "", page.table));
  headers.forEach((text) => (make("th", "", head, { scope: "col" }).textContent = text));
  const body = make("tbody", "", page.table);
  table.forEach((row) => {
    const line = make("tr", "", body);
    row.forEach((text) => (make("td", "", line).textContent = text));
  });
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function timeLeft(minutes) {
  if (minutes >= 1) return `about ${minutes.toFixed(minutes < 10 ? 1 : 0)} minutes left`;
  const seconds = Math.max(5, 5 * Math.ceil(minutes * 12));
  return `about ${seconds} seconds left`;
}

function readLook(root) {
  const style = getComputedStyle(root);
  const value = (name, otherwise) => style.getPropertyValue(name).trim() || otherwise;
  const [r, g, b] = style.color.match(/[\d.]+/g).map(Number);
  const dark = 0.299 * r + 0.587 * g + 0.114 * b > 140; // light text stands on a dark page
  return {
    ink: style.color,
    muted: value("--lk-muted", style.color),
    line: value("--lk-line", style.color),
    colors: COLORS[dark ? "dark" : "light"],
  };
}
