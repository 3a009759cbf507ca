// Which colour is a model's: by the order in which the models came, so that it stays when another is added.

const COLOURS = 8;

/** The number of each model's colour, by its id; beyond the eighth all have the last, a grey. */
export function colourNumbers(models) {
  const inOrder = [...models].sort((a, b) => (a.createTime < b.createTime ? -1 : 1));
  return new Map(inOrder.map((each, index) => [each.id, Math.min(index, COLOURS)]));
}

/** What a colour of the style sheet is in the theme that is shown. */
export function resolved(name) {
  const probe = document.createElement("span");
  probe.className = `probe-${name}`;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}
