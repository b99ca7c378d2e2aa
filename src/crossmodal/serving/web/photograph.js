// A photograph of the visitor's own: chosen, dropped or pasted.

import { $ } from "./dom.js";

const photographs = new Map(); // by a key that an entry of the history has too, different from those before a reload

export const photograph = (key) => photographs.get(key) ?? null;

// Calls found(key) for a photograph, and refused(message) for a file that is none.
export function listen(found, refused, limit) {
  const take = (file) => {
    const message = wrong(file, limit());
    if (message) return refused(message);
    const key = `${Date.now()}-${photographs.size}`;
    photographs.set(key, file);
    found(key);
  };

  $("choose").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) take(file);
    event.target.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (!file) return;
    event.preventDefault();
    take(file);
  });

  const carriesFile = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!carriesFile(event)) return;
    event.preventDefault(); // else the browser opens the file
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    document.body.classList.remove("dropping");
    if (!carriesFile(event)) return;
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) take(file);
  });
}

// Why a file cannot be searched with; some systems name no type, then the server decides.
function wrong(file, limit) {
  if (file.type && !file.type.startsWith("image/")) return `${file.name} is no photograph, but ${file.type}.`;
  if (!file.size) return `${file.name} is empty.`;
  if (limit && file.size > limit) return `${file.name} has ${megabytes(file.size)} MB; at most ${megabytes(limit)} MB can be sent.`;
  return null;
}

const megabytes = (bytes) => (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0);
