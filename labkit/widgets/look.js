// What both widgets use to build their elements. Joined with their own script into one module.

function make(tag, className, parent, attributes = {}) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent?.append(element);
  return element;
}

function makeRoot(className, label) {
  const root = make("section", `labkit-widget ${className}`, null, {
    "aria-label": label, "data-lm-suppress-shortcuts": true,
  });
  // JupyterLab takes Enter, space and the arrow keys for its own; here they belong to the controls.
  root.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
  });
  return root;
}
