// The browser's side of a knob: native controls, so that keyboard and screen reader simply work.
// Every change gets a number; the picture that answers the newest number ends "measuring …".

const DEBOUNCE = 60; // milliseconds without a change before one is sent

function slider(parent, spec) {
  const label = make("label", "", parent);
  label.append(spec.label);
  const input = make("input", "", label, {
    type: "range", min: spec.low, max: spec.high, step: spec.step, name: spec.name,
  });
  const output = make("output", "", label);
  const text = () => `${Number(Number(input.value).toPrecision(10))} ${spec.unit}`.trim();
  const show = () => {
    output.textContent = text();
    input.setAttribute("aria-valuetext", text());
  };
  input.addEventListener("input", show);
  return {
    input,
    get: () => Number(input.value),
    set: (value) => {
      input.value = value;
      show();
    },
  };
}

function choice(parent, spec) {
  const label = make("label", "", parent);
  label.append(spec.label);
  const input = make("select", "", label, { name: spec.name });
  for (const option of spec.options) make("option", "", input).textContent = option;
  return { input, get: () => input.value, set: (value) => (input.value = value) };
}

function makeView(model, el, store) {
  const root = makeRoot("labkit-knob", "Experiment");
  const bar = make("div", "lk-controls", root);
  const controls = model.get("controls").map((spec) => {
    const control = (spec.kind === "slider" ? slider : choice)(bar, spec);
    return { name: spec.name, ...control };
  });
  const busy = make("span", "lk-busy", bar, { role: "status" });
  const image = make("img", "", root);
  const text = make("p", "", root, { "aria-live": "polite" });
  const error = make("p", "lk-error", root, { role: "alert" });
  el.append(root);

  let timer = 0, url = "";
  const setBusy = (now) => {
    root.dataset.busy = now;
    busy.textContent = now ? "measuring …" : "";
  };
  const refresh = () => {
    const { shown, png } = store;
    URL.revokeObjectURL(url);
    url = URL.createObjectURL(new Blob([png], { type: "image/png" }));
    image.src = url;
    image.alt = shown.alt;
    text.textContent = shown.text;
    error.textContent = shown.error;
    root.dataset.turn = shown.turn;
    setBusy(shown.turn < store.turn);
  };
  const send = () => {
    const values = Object.fromEntries(controls.map(({ name, get }) => [name, get()]));
    model.send({ kind: "values", turn: store.turn, values });
  };
  controls.forEach(({ name, input, set }) => {
    set(store.shown.values[name]);
    input.addEventListener("input", () => {
      store.turn += 1;
      setBusy(true);
      clearTimeout(timer);
      timer = setTimeout(send, DEBOUNCE);
    });
  });
  refresh();
  const close = () => {
    clearTimeout(timer);
    URL.revokeObjectURL(url);
  };
  return { refresh, close };
}

export default () => {
  const store = { views: new Set() }; // with the model, since views come and go
  return {
    initialize({ model }) {
      store.shown = model.get("shown");
      store.png = model.get("png");
      store.turn = store.shown.turn;
      model.on("msg:custom", (message, buffers) => {
        if (message.kind !== "shown") return;
        store.shown = message.shown;
        store.png = buffers[0];
        store.views.forEach((view) => view.refresh());
      });
    },
    render({ model, el }) {
      const view = makeView(model, el, store);
      store.views.add(view);
      return () => {
        store.views.delete(view);
        view.close();
      };
    },
  };
};
