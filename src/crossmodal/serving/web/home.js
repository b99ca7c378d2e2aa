// The page before the first search: sentences to try and pictures from all over the gallery.

import { make } from "./dom.js";
import { address } from "./state.js";

const PICTURES = 12;
const NARROWEST = 0.6, WIDEST = 2.6; // width by height

export function samples(about, state) {
  const similar = about.matchers[0].similar, count = Math.min(PICTURES, about.images);
  const items = Array.from({ length: count }, (_, number) => Math.floor((number * about.images) / count));
  const examples = (about.examples ?? []).map((text) => make("a", { href: address({ ...state, q: text }), "data-q": text, dir: "auto" }, text));
  return [
    ...(examples.length ? [make("p", { class: "examples" }, "For example", examples)] : []),
    make("p", { class: "note" }, similar ? "Some pictures of the gallery; choose one to find others like it." : "Some pictures of the gallery."),
    make("div", { class: "samples" }, items.map((item) => sample(item, similar && address({ ...state, q: "", item: String(item) })))),
  ];
}

function sample(item, href) {
  const name = `picture ${item + 1} of the gallery`;
  const image = make("img", { src: `/images/${item}?side=320`, alt: name, decoding: "async" });
  const frame = href ? make("a", { href, "data-similar": item, "aria-label": `More like ${name}` }, image) : make("span", {}, image);
  image.addEventListener("load", () => {
    const ratio = image.naturalWidth / image.naturalHeight;
    frame.style.setProperty("--ratio", Math.min(WIDEST, Math.max(NARROWEST, ratio)));
  });
  return frame;
}
