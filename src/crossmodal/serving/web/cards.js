// Results as cards: a column for each matcher, best first.

import { layer, make, rectangle, score } from "./dom.js";
import { address } from "./state.js";

const NAMED = 6; // kinds of regions that are drawn and named on a card: as many as there are colours
const NARROWEST = 0.62, WIDEST = 2.6; // width by height of a card's picture; a panorama gets bars

// A matcher's results. other: the results that they are compared with, if any; first: whether these are the left ones.
export function column({ answer, name, compared, other, first, state, similar }) {
  const times = timing(answer.milliseconds);
  const parts = [];
  const { results } = answer;
  const line = answer.threshold === null || answer.threshold === undefined ? -1 : results.findIndex((result) => result.above_threshold === false);
  const above = line < 0 ? results : results.slice(0, line), below = line < 0 ? [] : results.slice(line);
  const ranks = other && new Map(other.results.map((result) => [key(result), result.rank]));
  const list = (part) => make("ol", { class: "cards", start: part[0].rank }, part.map((result) => card(result, { state, similar, move: ranks && moved(result, ranks, first) })));
  if (above.length) parts.push(list(above));
  if (below.length) parts.push(threshold(answer.threshold, above.length), list(below));
  if (!results.length) parts.push(make("p", { class: "nothing" }, "Nothing was found."));
  return make("section", { class: "column", "aria-label": `Results of ${name}` }, compared && make("h2", {}, name, make("small", {}, times)), parts);
}

// A column without results, and why.
export function failed(name, message) {
  return make("section", { class: "column", "aria-label": `Results of ${name}` }, make("h2", {}, name), make("p", { class: "nothing", role: "alert" }, message));
}

// "encode 14 ms · search 0.8 ms · re-rank 8 ms"
export function timing(milliseconds) {
  const parts = [["encode", milliseconds.encode], ["search", milliseconds.search], ["re-rank", milliseconds.rerank]];
  const known = parts.filter(([name, value]) => value !== null && value !== undefined && (name !== "re-rank" || value >= 0.5)); // where nothing is scored again
  return known.map(([name, value]) => `${name} ${value < 10 ? value.toFixed(1) : Math.round(value)} ms`).join(" · ");
}

// A gallery that keeps no regions: those that the explanation came with, on the card of a picture.
export function addRegions(picture, regions) {
  const kinds = kindsOf(regions), image = picture.querySelector("img");
  for (const [name, value] of Object.entries(focusable(image.alt))) picture.setAttribute(name, value);
  picture.append(...boxesOf(regions, kinds));
  const list = names(kinds);
  if (list) picture.closest(".card").querySelector(".file").before(list);
}

// Results of two matchers are the same by their caption, where captions are found, or by their picture.
export const key = (result) => (result.caption ? `${result.item} ${result.caption}` : `${result.item}`);

function card(result, { state, similar, move }) {
  const ratio = result.width / result.height, shown = Math.min(WIDEST, Math.max(NARROWEST, ratio));
  const kinds = kindsOf(result.regions);
  const element = make("li", { class: "card", "data-item": result.item, "data-key": key(result) },
    make("div", { class: ratio > shown ? "frame wide" : ratio < shown ? "frame tall" : "frame" }, picture(result, kinds)),
    make("p", { class: "facts" },
      make("b", {}, make("span", { class: "spoken" }, "rank "), result.rank), " ",
      make("span", { title: "score" }, score(result.score)), " ",
      result.gap === null || result.gap === undefined ? null : make("span", { class: "faint", title: "ahead of the next result by" }, `+${score(result.gap)}`),
      move),
    result.caption ? make("p", { class: "caption found", dir: "auto" }, result.caption) : ownCaptions(result.captions),
    names(kinds),
    make("p", { class: "file" },
      make("a", { href: result.image, target: "_blank", rel: "noopener", title: `${result.file}, the whole picture` }, result.file),
      similar && make("a", { class: "similar", href: address({ ...state, q: "", photo: null, item: String(result.item) }), "data-similar": result.item }, "More like this")));
  element.style.setProperty("--ratio", shown.toFixed(4));
  element.querySelector(".picture").style.setProperty("--own-ratio", ratio.toFixed(4));
  return element;
}

function picture(result, kinds) {
  const label = result.captions?.[0] || [result.file, ...kinds.keys()].filter(Boolean).join(", ");
  return make("div", { class: "picture", ...(result.regions?.length > 0 && focusable(label)) },
    make("img", { src: result.thumbnail, width: result.width, height: result.height, alt: label, loading: result.rank > 12 ? "lazy" : "eager", decoding: "async", draggable: "false" }),
    boxesOf(result.regions ?? [], kinds));
}

const focusable = (label) => ({ tabindex: 0, role: "group", "aria-label": `${label}. Arrow keys walk its regions.` });

function boxesOf(regions, kinds) {
  const drawn = regions.filter((region) => kinds.has(region.class || ""));
  return drawn.length ? [layer("boxes", drawn.map((region) => rectangle(region.box, { class: `region-${kinds.get(region.class || "").colour}` })))] : [];
}

// The detector's classes, best region first: name -> { colour, count }. Regions without a name count as one kind.
function kindsOf(regions) {
  const kinds = new Map();
  for (const region of [...(regions ?? [])].sort((one, other) => other.score - one.score)) {
    const name = region.class || "", kind = kinds.get(name);
    if (kind) kind.count += 1;
    else if (kinds.size < NAMED) kinds.set(name, { colour: kinds.size, count: 1 });
  }
  return kinds;
}

function names(kinds) {
  const named = [...kinds].filter(([name]) => name);
  return named.length > 0 && make("ul", { class: "names", "aria-label": "detected", title: named.map(([name]) => name).join(", ") },
    named.map(([name, { colour, count }]) => make("li", { class: `region-${colour}` }, count > 1 ? `${name} ×${count}` : name)));
}

function ownCaptions(captions) {
  if (!captions?.length) return null;
  const [first, ...more] = captions.map((text) => make("p", { class: "caption", dir: "auto" }, text));
  if (!more.length) return first;
  return make("details", { class: "captions" }, make("summary", {}, first, make("span", { class: "more", title: `${more.length} more captions` }, `+${more.length}`, make("span", { class: "spoken" }, " more captions"))), more);
}

function threshold(value, above) {
  const text = above ? "Nothing here fits well below this line" : "Nothing here fits well";
  return make("p", { class: "line", title: `Measured on the validation split: where the best score is under ${score(value)}, it is more likely that no picture fits` }, make("span", {}, text));
}

// What the second matcher changed, and on the first one's side which results the second one lacks.
function moved(result, ranks, first) {
  const rank = ranks.get(key(result));
  if (first) return rank === undefined && make("span", { class: "move" }, "only here");
  if (rank === undefined) return make("span", { class: "move up" }, "new");
  const by = rank - result.rank;
  if (!by) return make("span", { class: "move faint", title: "the same rank" }, "=", make("span", { class: "spoken" }, " the same rank"));
  const direction = by > 0 ? "up" : "down";
  return make("span", { class: `move ${direction}`, title: `${direction} from rank ${rank}` }, `${by > 0 ? "▲" : "▼"} ${Math.abs(by)}`, make("span", { class: "spoken" }, ` ${direction} from rank ${rank}`));
}
