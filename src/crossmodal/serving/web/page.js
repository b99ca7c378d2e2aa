// The page of crossmodal serve: the state in the address, controls, and results.

import * as server from "./server.js";
import { column, failed, key, timing } from "./cards.js";
import { $, make } from "./dom.js";
import { samples } from "./home.js";
import { listen, photograph } from "./photograph.js";
import { DEFAULTS, address, asks, kept, read, sameResults } from "./state.js";
import { begin, explain, line, tell as tellMeaning } from "./words.js";

const COUNTS = [6, 12, 24, 48, 96];
const WAYS = { // of searching: label and what it does
  exact: ["Exact", "Every picture is compared"],
  index: ["Index", "The index finds the pictures, approximately"],
  shortlist: ["Shortlist", "The index finds a shortlist, which the model scores"],
};
const HOME_TITLE = document.title;
const SLOW = 400; // milliseconds after which the page says that it searches

let about = null; // what the server says of itself; requests do not wait for it
let state = read(location, history.state);
let running = null; // AbortController of the search in progress
let preview = null; // object URL of the visitor's photograph
let scroll = history.state?.scroll ?? 0; // where the results are to be read on

// ---- state

// Show another state; a link or a button got there.
function go(change, { replace = false } = {}) {
  const next = { ...state, ...change };
  if (!replace) history.replaceState({ ...kept(state), scroll: scrollY }, "", location.href); // for "back"
  history[replace ? "replaceState" : "pushState"](kept(next), "", address(next));
  visit(next);
}

function visit(next) {
  const again = sameResults(next, state) && $("columns").childElementCount > 0;
  state = next;
  controls();
  if (!again) results();
}

const toSentence = { item: null, photo: null, find: null };

// ---- results

async function results() {
  running?.abort();
  const controller = (running = new AbortController());
  tell(null);
  document.title = state.q ? `${state.q} – crossmodal` : HOME_TITLE;
  document.body.dataset.work = "search";
  const slow = setTimeout(() => status("Searching…"), SLOW);
  try {
    await (asks(state) ? find(state, controller.signal, () => clearTimeout(slow)) : home());
  } catch (error) {
    if (running === controller) problem(error.message, error instanceof server.Passing);
  } finally {
    clearTimeout(slow);
    if (running === controller) delete document.body.dataset.work;
  }
}

async function find(searched, signal, found) {
  const own = searched.photo === null ? null : photograph(searched.photo);
  if (searched.photo !== null && !own) throw new Error("A link does not hold a photograph: choose it again.");
  if (own && !searched.find) {
    searched.find = await defaultFind();
    controls();
  }
  if (searched.mode !== null) await known; // whether every matcher can search so
  const asked = [0, 1].slice(0, searched.against ? 2 : 1).map((matcher) => server.search(limited(searched, matcher), matcher, own, signal));
  const settled = await Promise.allSettled(asked);
  await known;
  if (signal.aborted || !about) return;
  found();
  if (settled.every(({ status }) => status === "rejected")) throw settled[0].reason;
  await paint(searched, settled, signal);
}

// A state with a way of searching that the matcher has.
function limited(searched, matcher) {
  const modes = about?.matchers[matcher]?.modes;
  return modes && matcher > 0 && !modes.includes(searched.mode) ? { ...searched, mode: null } : searched;
}

async function paint(searched, settled, signal) {
  const answers = settled.map(({ value }) => value ?? null), compared = answers.length > 1;
  const sections = answers.map((answer, number) => {
    const name = about.matchers[number]?.name ?? "the other";
    if (!answer) return failed(name, settled[number].reason.message);
    const other = compared ? answers[1 - number] : null;
    return column({ answer, name, compared, other, first: number === 0, state: searched, similar: about.matchers[0].similar });
  });
  const columns = $("columns");
  delete columns.dataset.home;
  columns.className = compared ? "compared" : "";
  columns.replaceChildren(...sections);
  const pictures = answers.map((answer, number) => (answer ? pair(answer.results, sections[number], about.matchers[number].explains) : []));
  const first = answers.find(Boolean);
  status(summary(answers, first));
  preparePreview(first);
  const explained = searched.q ? answers.find((answer, matcher) => answer?.query.words.length && about.matchers[matcher].explains) : null;
  begin(explained?.query, pictures.flat());
  if (scroll) scrollTo({ top: scroll, behavior: "instant" });
  scroll = 0;
  document.body.dataset.work = "explanation";
  await explainAll(searched, answers, pictures, signal);
}

// Cards with their pictures; with the words of captions that were found, where the matcher explains them.
const pair = (found, section, explains) => [...section.querySelectorAll(".card")].map((card, number) => {
  const { item, regions, caption: text, words } = found[number];
  const caption = text && explains && words.length ? { element: card.querySelector(".caption.found"), text, words } : null;
  return { picture: card.querySelector(".picture"), item, regions, caption };
});

// What is to be explained, as [sentence, cards]: the query on all cards, or each caption that was found on its own.
function sentences(answer, cards, q) {
  const captions = cards.filter(({ caption }) => caption);
  if (captions.length) return captions.map((card) => [card.caption.text, [card]]);
  return cards.length && answer.query.words.length ? [[answer.query.text ?? q, cards]] : [];
}

// After the pictures are there: which regions answer which words.
async function explainAll(searched, answers, pictures, signal) {
  await new Promise((painted) => setTimeout(painted)); // the results first
  const kinds = new Map();
  await Promise.all(answers.map(async (answer, matcher) => {
    if (!about.matchers[matcher].explains) return;
    try {
      for (const [sentence, cards] of sentences(answer, pictures[matcher], searched.q)) {
        const explanation = await server.words(sentence, cards.map(({ item }) => item), matcher, signal);
        if (signal.aborted) return;
        explain(explanation, cards, matcher === 0);
        tellMeaning(kinds.set(about.matchers[matcher].name, explanation.kind));
      }
    } catch (error) {
      if (!signal.aborted) line(`Which regions answer which word is not known: ${error.message}`);
    }
  }));
}

function summary(answers, first) {
  const shown = first.results.length, kind = first.results[0]?.caption ? "caption" : "picture";
  const count = `${shown} ${kind}${shown === 1 ? "" : "s"}`;
  if (answers.length < 2 || answers.includes(null)) return `${count}, best first · ${timing(first.milliseconds)}`;
  const ranks = new Map(answers[0].results.map((result) => [key(result), result.rank]));
  const stay = answers[1].results.filter((result) => ranks.get(key(result)) === result.rank).length;
  return `${count} each, best first · ${stay} of ${answers[1].results.length} at the same rank with both`;
}

// The page before the first search.
async function home() {
  begin(null, []);
  const columns = $("columns");
  columns.replaceChildren();
  columns.className = "home";
  columns.dataset.home = "1";
  status("");
  await known;
  if (about && !asks(state)) columns.replaceChildren(...samples(about, { ...state, ...toSentence }));
}

// ---- lines

function status(text) {
  $("status").textContent = text;
}

function tell(message, again = false) {
  $("error").hidden = !message;
  $("error").firstElementChild.textContent = message ?? "";
  $("again").hidden = !again;
}

function problem(message, again = false) {
  begin(null, []);
  $("columns").replaceChildren();
  status("");
  tell(message, again);
}

// ---- controls

function controls() {
  if ($("q") !== document.activeElement || $("q").value.trim() !== state.q) $("q").value = state.q;
  const counts = [...new Set([...COUNTS.filter((count) => !about || count <= about.max_k), state.k])].sort((one, other) => one - other);
  $("k").replaceChildren(...counts.map((count) => make("option", { value: count, selected: count === state.k }, count)));
  press($("boxes"), state.boxes);
  press($("against"), state.against);
  document.body.dataset.regions = state.boxes ? "on" : "off";
  preparePreview(null);
  if (!about) return;
  const [first, second] = about.matchers;
  $("mode").hidden = about.modes.length < 2 || state.item !== null;
  $("mode").replaceChildren(...about.modes.map((mode) => make("button", { type: "button", value: mode, title: WAYS[mode]?.[1] }, WAYS[mode]?.[0] ?? mode)));
  choose("mode", state.mode ?? about.modes[0]);
  $("find").hidden = state.photo === null || !about.captions || !first.similar;
  choose("find", state.find);
  $("against").hidden = !second;
  $("against").textContent = second ? `Compare with ${second.name}` : "";
  $("choose").hidden = !takesPhotographs();
}

function press(button, on) {
  button.setAttribute("aria-pressed", String(Boolean(on)));
}

function choose(group, value) {
  for (const button of $(group).children) press(button, button.value === value);
}

// The picture that is searched with, in the search box.
function preparePreview(answer) {
  const asked = $("asked"), image = asked.querySelector("img"), text = asked.querySelector("span");
  const own = state.photo === null ? null : photograph(state.photo);
  asked.hidden = state.item === null && !own;
  $("q").placeholder = asked.hidden ? "Describe a photograph" : "or describe one";
  if (asked.hidden) return;
  const source = own ? (asked.dataset.photo === String(state.photo) ? preview : renew(own)) : `/images/${encodeURIComponent(state.item)}?side=320`;
  asked.dataset.photo = own ? state.photo : "";
  if (image.getAttribute("src") !== source) image.src = source;
  if (own) text.textContent = own.name;
  else text.textContent = answer?.query.text || "Pictures like this";
}

function renew(file) {
  if (preview) URL.revokeObjectURL(preview);
  return (preview = URL.createObjectURL(file));
}

function takesPhotographs() {
  const [first] = about.matchers;
  return first.photographs !== false && (about.captions > 0 || first.similar);
}

async function defaultFind() {
  await known;
  return about && !about.captions ? "images" : "captions";
}

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const q = $("q").value.trim();
  if (!q && !state.q) return; // a picture stays
  if (q === state.q && asks(state)) return void results(); // once more
  go({ ...toSentence, q });
});
$("asked").querySelector("button").addEventListener("click", () => {
  go({ ...toSentence, q: "" });
  $("q").focus();
});
$("again").addEventListener("click", () => {
  if (!about) known = introduce();
  results();
});
$("k").addEventListener("change", (event) => go({ k: Number(event.target.value) }));
$("mode").addEventListener("click", (event) => event.target.value && go({ mode: event.target.value === about.modes[0] ? null : event.target.value }));
$("find").addEventListener("click", (event) => event.target.value && go({ find: event.target.value }));
$("boxes").addEventListener("click", () => go({ boxes: !state.boxes }, { replace: true })); // no step for "back"
$("against").addEventListener("click", () => go({ against: !state.against }));

// Links of the page that are states: without a new page, but for a new tab.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-similar], a[data-q], h1 a");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  const { similar, q } = link.dataset;
  go({ ...toSentence, q: q ?? "", item: similar ?? null });
  scrollTo({ top: 0 });
  if (!similar) $("q").focus();
});

// A picture that both columns show.
function mark(event) {
  const { key } = event.target.closest?.(".compared .card")?.dataset ?? {};
  for (const card of document.querySelectorAll(".card")) card.classList.toggle("same", key !== undefined && card.dataset.key === key);
}
document.addEventListener("pointerover", mark);
document.addEventListener("focusin", mark);

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  event.preventDefault();
  $("q").focus();
  $("q").select();
});
history.scrollRestoration = "manual"; // results arrive later
addEventListener("popstate", (event) => {
  scroll = event.state?.scroll ?? 0;
  visit(read(location, event.state));
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address stays
  $("results").focus();
});
listen((photo) => {
  if (about && !takesPhotographs()) tell("This gallery cannot be searched with a photograph.");
  else go({ ...toSentence, q: "", photo });
}, (message) => tell(message), () => about?.max_bytes);

// ---- start

async function introduce() {
  try {
    about = await server.about();
  } catch (error) {
    return problem(error.message, true);
  }
  const number = (value) => value.toLocaleString("en");
  const captions = about.captions ? `, ${number(about.captions)} captions` : "";
  $("about").textContent = `${about.dataset}: ${number(about.images)} picture${about.images === 1 ? "" : "s"}${captions} · ${about.matchers.map(({ name }) => name).join(", ")}`;
  $("about").title = about.gallery;
  if (about.max_words) $("q").title = `At most ${about.max_words} words are read`;
  controls();
}

let known = introduce();
if (!history.state) history.replaceState(kept(state), "", location.href);
controls();
results();
