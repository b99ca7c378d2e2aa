// Requests to the server. What went wrong is an Error whose message is one line for the visitor.

const KEPT = 96; // answers, so that "back" is immediate
const answers = new Map();

export class Passing extends Error {} // worth another try

export async function about() {
  return (await ask("/api/about")).json();
}

// The results of a state for one matcher (0 or 1). photograph: the File of state.photo.
export async function search(state, matcher, photograph, signal) {
  const values = new URLSearchParams({ k: state.k, matcher });
  if (state.mode !== null && state.item === null) values.set("mode", state.mode);
  let url, options = { signal }, key;
  if (photograph) {
    values.set("find", state.find);
    url = `/api/search?${values}`;
    key = `${state.photo} ${url}`;
    options = { method: "POST", body: photograph, headers: { "Content-Type": photograph.type || "application/octet-stream" }, signal };
  } else if (state.item !== null) {
    key = url = `/api/similar/${encodeURIComponent(state.item)}?${values}`;
  } else {
    values.set("q", state.q);
    key = url = `/api/search?${values}`;
  }
  return remembered(key, async () => (await ask(url, options)).json());
}

// Which regions of the items answer which word of a sentence.
export async function words(q, items, matcher, signal) {
  const body = JSON.stringify({ q, items, matcher });
  const options = { method: "POST", body, headers: { "Content-Type": "application/json" }, signal };
  return remembered(`words ${body}`, async () => (await ask("/api/words", options)).json());
}

async function remembered(key, get) {
  const answer = answers.get(key) ?? (await get());
  answers.delete(key);
  answers.set(key, answer); // the newest last
  if (answers.size > KEPT) answers.delete(answers.keys().next().value);
  return answer;
}

async function ask(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Passing("The server does not answer. Is crossmodal serve still running?");
  }
  if (response.ok) return response;
  const said = await response.json().then((content) => content.error, () => null);
  const message = said ? String(said) : `The server answered with status ${response.status}.`;
  throw response.status === 429 || response.status >= 500 ? new Passing(message) : new Error(message);
}
