// Builds elements, and brings what is on the page to what should be there without replacing what has not changed.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "line", "circle", "rect", "g", "title"]);

/** An element. Children are nodes, or text, which is never read as HTML; null, undefined and false are left out. */
export function h(tag, attributes = {}, ...children) {
  const made = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    made.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return made;
}

/** Makes `shown` the same as `wanted`, in place: focus, selection, scrolling and open details stay as they are.
 *
 * What has a data-keep belongs to a script, such as a chart, and is left alone.
 */
export function morph(shown, wanted) {
  if (shown.nodeType !== wanted.nodeType || shown.nodeName !== wanted.nodeName || key(shown) !== key(wanted)) {
    shown.replaceWith(wanted);
    return;
  }
  if (shown.nodeType === Node.TEXT_NODE) {
    if (shown.data !== wanted.data) shown.data = wanted.data;
    return;
  }
  if (shown.hasAttribute("data-keep")) return;
  morphAttributes(shown, wanted);
  morphChildren(shown, [...wanted.childNodes]);
}

/** Makes the children of `parent` the same as these nodes. */
export function morphChildren(parent, wanted) {
  const shown = [...parent.childNodes];
  wanted.forEach((each, index) => {
    if (index < shown.length) morph(shown[index], each);
    else parent.append(each);
  });
  for (const extra of shown.slice(wanted.length)) extra.remove();
}

function key(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null;
}

function morphAttributes(shown, wanted) {
  for (const { name, value } of wanted.attributes) {
    if (shown.getAttribute(name) === value) continue;
    shown.setAttribute(name, value);
    if (name === "value" && shown.nodeName === "INPUT") shown.value = value;
  }
  for (const { name } of [...shown.attributes]) {
    const own = name === "open" && shown.nodeName === "DETAILS";
    if (!wanted.hasAttribute(name) && !own) shown.removeAttribute(name);
  }
}
