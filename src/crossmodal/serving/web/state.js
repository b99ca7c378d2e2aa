// What the page shows is a state, and the address holds it: a link is a search.
//
// q: sentence. item: a picture of the gallery that others are to be like. photo: key of the visitor's own photograph,
// which no link can hold. At most one of the three counts. find: what a photograph finds, captions or images.

export const DEFAULTS = { q: "", item: null, photo: null, find: null, k: 12, mode: null, against: false, boxes: false };

export function read(location, kept) {
  const values = new URLSearchParams(location.search);
  const item = values.get("item"), photo = kept?.photo ?? null;
  return {
    ...DEFAULTS,
    q: item === null && photo === null ? (values.get("q") ?? "").trim() : "",
    item: photo === null ? item : null,
    photo,
    find: kept?.find ?? null,
    k: Number.parseInt(values.get("k"), 10) || DEFAULTS.k,
    mode: values.get("mode"),
    against: values.get("against") === "1",
    boxes: values.get("boxes") === "1",
  };
}

export function address(state) {
  const values = new URLSearchParams();
  if (state.q) values.set("q", state.q);
  if (state.item !== null) values.set("item", state.item);
  if (state.k !== DEFAULTS.k) values.set("k", state.k);
  if (state.mode !== null) values.set("mode", state.mode);
  if (state.against) values.set("against", "1");
  if (state.boxes) values.set("boxes", "1");
  const text = values.toString();
  return text ? `/?${text}` : "/";
}

// What goes with an entry of the history, besides its address.
export const kept = (state) => ({ photo: state.photo, find: state.find });

export const asks = (state) => Boolean(state.q) || state.item !== null || state.photo !== null;

// Whether two states have the same results.
export function sameResults(one, other) {
  const without = (state) => JSON.stringify({ ...state, boxes: false });
  return without(one) === without(other);
}
