// Words and regions: which regions of each picture answer a word, and which words a region answers.

import { addRegions } from "./cards.js";
import { $, layer, draw, make, rectangle } from "./dom.js";

const MOST = 4, LEAST = 0.2; // regions that answer a word at most, and the strength of one that still does
const TAG = 21; // pixels of the height of a strength's label
const WAITING = "Point at a word or a region. Which regions answer which word is being worked out…";
const MEANINGS = { // of what lights up
  alignment: "Brightness: the model's own alignment of words with regions.",
  occlusion: "Brightness: how much the score falls without the region because of the word. Line under a word: how much it falls without the word.",
};

const bar = $("bar"), chips = $("words");
let groups = []; // of words that can be pointed at: { words, buttons } of the sentence, or of each caption found
let pictures = new Map(); // picture -> { regions, strength, group }
const wordOf = new WeakMap(); // button -> { group, word }
let held = null, shown = null; // { group, word } or { picture, region }
let masks = 0;

// The line that says what lights up. kinds: matcher -> kind of its explanation.
export function tell(kinds) {
  const [[, first], ...others] = [...kinds];
  const alike = others.every(([, kind]) => kind === first);
  const meaning = alike ? MEANINGS[first] : [...kinds].map(([matcher, kind]) => `${matcher}: ${MEANINGS[kind]}`).join(" ");
  line(`Point at a word or a region. ${meaning}`);
}

export function line(text) {
  $("explains").textContent = text;
}

// The words of a sentence as chips, or, of a photograph, those of the captions that it found, on their cards. A picture
// knows its regions before its explanation arrives. caption: { element, text, words }, of a picture whose words it has.
export function begin(query, shownPictures) {
  clear();
  const sentence = group(query?.words ?? []);
  groups = [sentence];
  pictures = new Map();
  for (const { picture, regions, caption } of shownPictures) {
    const own = caption ? group(caption.words) : sentence;
    if (caption) {
      groups.push(own);
      caption.element.replaceChildren(...sequence(caption.text, own, (text) => text));
    }
    pictures.set(picture, { regions: regions ?? [], strength: null, group: own });
  }
  chips.replaceChildren(...sequence(query?.text ?? "", sentence, between).filter(Boolean));
  bar.hidden = !sentence.words.length;
  line(groups.some(({ words }) => words.length) ? WAITING : "");
}

const group = (words) => ({ words, buttons: [] });

// The words of a text as buttons, and what is between them; nothing of a text without words.
function sequence(text, own, other) {
  if (!own.words.length) return [];
  const characters = [...text], parts = []; // the server counts code points
  let end = 0;
  own.words.forEach((word, number) => {
    parts.push(other(characters.slice(end, word.start).join("")));
    const button = make("button", { type: "button", class: "word", "data-word": number, tabindex: number ? -1 : 0, "aria-pressed": "false" }, characters.slice(word.start, word.end).join("") || word.text);
    wordOf.set(button, { group: own, word: number });
    own.buttons.push(button);
    parts.push(button);
    end = word.end;
  });
  parts.push(other(characters.slice(end).join(""), true));
  return parts;
}

// What the server found out about pictures with the same words. strength: words x regions, 0 to 1; word_strength: words.
// first: of the first matcher, whose words have a line under them, as long as they count on all these pictures together.
export function explain(explanation, explained, first) {
  const own = pictures.get(explained[0]?.picture)?.group;
  if (!own) return;
  const order = own.words.map((word) => explanation.words.findIndex((known) => known.start === word.start)); // another matcher may read fewer words
  const items = new Map(explanation.items.map((item) => [String(item.item), item]));
  const weights = own.words.map(() => []);
  for (const { picture, item } of explained) {
    const found = items.get(String(item)), kept = pictures.get(picture);
    if (!found || !kept) continue;
    if (found.regions?.length) {
      if (!kept.regions.length) addRegions(picture, found.regions);
      kept.regions = found.regions; // a matcher may make its own
    }
    kept.strength = order.map((number) => found.strength[number] ?? []);
    order.forEach((number, word) => found.word_strength?.[number] !== undefined && weights[word].push(found.word_strength[number]));
  }
  if (first && explanation.kind === "occlusion") {
    weights.forEach((values, word) => own.buttons[word].style.setProperty("--weight", values.reduce((sum, value) => sum + value / values.length, 0)));
  }
  refresh();
}

// What is no word; at the end perhaps what the model does not read any more.
function between(text, last = false) {
  const unread = last && /\p{L}/u.test(text);
  return text.trim() && make("span", { class: "between", title: unread && "The model reads no further than this" }, text.trim());
}

function clear() {
  held = null;
  show(null);
}

function same(one, other) {
  return one === other || (one && other && one.group === other.group && one.word === other.word && one.picture === other.picture && one.region === other.region);
}

function show(target) {
  if (same(target, shown)) return;
  shown = target;
  refresh();
  if (target) speak(target);
}

function refresh() {
  document.querySelectorAll(".answer, .strength").forEach((element) => element.remove());
  document.body.classList.toggle("pointed", shown !== null);
  for (const own of groups) {
    const pointed = pictures.get(shown?.picture), strength = pointed?.group === own ? pointed.strength : null;
    own.buttons.forEach((button, word) => {
      button.classList.toggle("on", shown?.group === own && shown.word === word);
      button.setAttribute("aria-pressed", String(held?.group === own && held.word === word));
      button.style.setProperty("--strength", strength?.[word]?.[shown.region] ?? 0);
    });
  }
  if (!shown) return;
  if (shown.picture) {
    const { regions } = pictures.get(shown.picture), region = regions[shown.region];
    spotlight(shown.picture, regions, [[shown.region, 1]], region.class || `region ${shown.region + 1}`);
    return;
  }
  for (const [picture, { regions, strength, group: own }] of pictures) {
    if (!strength || own !== shown.group) continue;
    const found = answering(strength[shown.word]);
    spotlight(picture, regions, found, found.length ? found[0][1].toFixed(2) : null);
  }
}

// The regions that answer a word, strongest first: [region, strength].
function answering(strength) {
  return strength.map((value, region) => [region, value]).filter(([, value]) => value >= LEAST)
    .sort((one, other) => other[1] - one[1]).slice(0, MOST);
}

// Darkens a picture but for the regions found. text: at the first of them.
function spotlight(picture, regions, found, text) {
  const id = `mask-${(masks += 1)}`;
  const holes = found.map(([region, value]) => rectangle(regions[region].box, { fill: "black", "fill-opacity": 0.25 + 0.75 * value }));
  const outlines = found.map(([region, value]) => rectangle(regions[region].box, { class: "lit", "stroke-opacity": Math.max(0.35, value) }));
  picture.append(layer(found.length ? "answer" : "answer none", draw("mask", { id }, rectangle([0, 0, 1, 1], { fill: "white" }), holes), rectangle([0, 0, 1, 1], { class: "shade", mask: `url(#${id})` }), outlines));
  if (!text) return;
  const [x1, y1, x2, y2] = regions[found[0][0]].box, { clientHeight: height } = picture;
  const tag = make("b", { class: "strength", "aria-hidden": "true" }, text);
  if (x1 < 0.6) tag.style.left = `${100 * Math.max(0, x1)}%`;
  else tag.style.right = `${100 * Math.max(0, 1 - x2)}%`;
  const above = y1 * height, below = (1 - y2) * height; // pixels
  if (above >= TAG) tag.style.top = `${above - TAG}px`;
  else tag.style.top = below >= TAG ? `${height - below}px` : `${Math.max(0, above)}px`;
  picture.append(tag);
}

function speak({ group: own, word, picture, region }) {
  let text;
  if (picture) {
    const { regions, strength, group: { words } } = pictures.get(picture), answered = strength ?? [];
    const strong = words.map((entry, number) => [entry.text, answered[number]?.[region] ?? 0]).filter(([, value]) => value >= LEAST);
    strong.sort((one, other) => other[1] - one[1]);
    text = `${regions[region].class || `region ${region + 1}`}${strong.length ? `: answers ${strong.slice(0, MOST).map(([name]) => name).join(", ")}` : ""}`;
  } else {
    const best = [...pictures.values()].filter((kept) => kept.strength && kept.group === own).map(({ regions, strength }) => {
      const [first] = answering(strength[word]);
      return first ? `${regions[first[0]].class || "a region"} ${first[1].toFixed(2)}` : "none";
    });
    text = `${own.words[word].text}${best.length ? `: ${best.slice(0, 3).join(", ")}` : ""}`;
  }
  $("spoken").textContent = text;
}

// The smallest region under the pointer.
function regionAt(picture, event) {
  const kept = pictures.get(picture);
  if (!kept) return null;
  const { left, top, width, height } = picture.getBoundingClientRect();
  const x = (event.clientX - left) / width, y = (event.clientY - top) / height;
  let best = null, smallest = Infinity;
  kept.regions.forEach(({ box: [x1, y1, x2, y2] }, region) => {
    const area = (x2 - x1) * (y2 - y1);
    if (x1 <= x && x <= x2 && y1 <= y && y <= y2 && area < smallest) [best, smallest] = [region, area];
  });
  return best === null ? null : { picture, region: best };
}

function targetOf(event) {
  const button = event.target.closest?.("[data-word]"), picture = event.target.closest?.(".picture");
  if (button) return wordOf.get(button);
  return picture ? regionAt(picture, event) : null;
}

document.addEventListener("pointermove", (event) => event.pointerType !== "touch" && show(targetOf(event) ?? held));
document.addEventListener("click", (event) => {
  if (!event.target.closest?.("[data-word], .picture")) return;
  const target = targetOf(event);
  held = same(target, held) ? null : target;
  if (target?.group) rove(target);
  shown = undefined; // a tap on what is already lit up holds it
  show(held);
});

document.addEventListener("focusin", (event) => {
  const target = wordOf.get(event.target);
  if (target && event.target.matches(":focus-visible")) show(target);
});
document.addEventListener("focusout", (event) => {
  if (event.target.closest?.("[data-word], .picture")) show(held);
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && shown) {
    held = null;
    show(null);
    return;
  }
  const forward = getComputedStyle(chips).direction === "rtl" ? -1 : 1;
  const chip = event.target.closest?.("[data-word]"), picture = event.target.closest?.(".picture");
  const step = { ArrowRight: chip ? forward : 1, ArrowLeft: chip ? -forward : -1, ArrowDown: 1, ArrowUp: -1 }[event.key];
  const end = { Home: 0, End: -1 }[event.key];
  if ((step === undefined && end === undefined) || event.altKey || event.ctrlKey || event.metaKey) return;
  if (chip) {
    const { group: own, word } = wordOf.get(chip), count = own.words.length;
    const target = { group: own, word: ((end ?? word + step) + count) % count };
    held = null;
    rove(target).focus();
    show(target);
  } else if (picture && pictures.get(picture)?.regions.length) {
    const count = pictures.get(picture).regions.length;
    const from = shown?.picture === picture ? shown.region : step > 0 ? -1 : count;
    const region = ((end ?? from + step) + count) % count;
    held = null;
    show({ picture, region });
  } else return;
  event.preventDefault();
});

// One of the words of a sentence is reached by the Tab key.
function rove({ group: { buttons }, word: chosen }) {
  buttons.forEach((button, word) => (button.tabIndex = word === chosen ? 0 : -1));
  buttons[chosen].scrollIntoView({ block: "nearest", inline: "nearest" });
  return buttons[chosen];
}
