// Elements made from data: text is always text, never markup.

const SVG = "http://www.w3.org/2000/svg";

// make("li", { class: "card" }, picture, "text"): attributes of null, undefined or false are left out, and so are such children.
export function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

// A rectangle in a viewBox of 0 0 1 1. box: x1, y1, x2, y2 as shares of the picture.
export function rectangle([x1, y1, x2, y2], attributes = {}) {
  return draw("rect", { x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1), ...attributes });
}

export function layer(name, ...children) {
  return draw("svg", { class: name, viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" }, ...children);
}

// A score as the report writes it: three digits, a true minus.
export function score(value) {
  return value.toFixed(3).replace("-", "−");
}

export const $ = (id) => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}
