const root = document.documentElement;

// Filters: a button's value goes to the attribute of the page that its group sets.
for (const group of document.querySelectorAll("[data-sets]")) {
  group.addEventListener("click", (event) => {
    const pressed = event.target.closest("button");
    if (!pressed) return;
    root.dataset[group.dataset.sets] = pressed.value;
    for (const button of group.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button === pressed));
    }
  });
}

// Regions that answer a word: drawn over every picture of its card while it is pointed at; a click holds them.
const data = document.getElementById("answers");
if (data) {
  const { boxes, answers } = JSON.parse(data.textContent);
  const blank = document.getElementById("blank").content.firstElementChild;
  let held = null, shown = null;

  function draw(picture, found) {
    const layer = blank.cloneNode(true), sample = layer.firstElementChild;
    for (const [region, strength] of found) {
      const [x1, y1, x2, y2] = boxes[picture.dataset.image][region].map((value) => value / 1000);
      const box = sample.cloneNode();
      for (const [name, value] of Object.entries({ x: x1, y: y1, width: x2 - x1, height: y2 - y1 })) box.setAttribute(name, value);
      box.style.opacity = strength / 9;
      layer.append(box);
    }
    sample.remove();
    picture.append(layer);
  }

  function show(word) {
    if (word === shown) return;
    if (shown) {
      const card = shown.closest("article");
      shown.classList.remove("on");
      card.classList.remove("pointed");
      for (const layer of card.querySelectorAll(".answer")) layer.remove();
    }
    shown = word;
    if (!word) return;
    const card = word.closest("article"), caption = word.closest("[data-caption]").dataset.caption;
    word.classList.add("on");
    card.classList.add("pointed");
    for (const picture of card.querySelectorAll("[data-image]")) {
      const found = answers[`${picture.dataset.image}-${caption}`]?.[word.dataset.word];
      if (found) draw(picture, found);
    }
  }

  document.addEventListener("pointerover", (event) => show(event.target.closest("[data-word]") ?? held));
  document.addEventListener("click", (event) => {
    const word = event.target.closest("[data-word]");
    held = word && word !== held ? word : null;
    show(held);
  });
  document.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const sentence = event.target.closest?.("[data-caption]");
    if (event.key === "Escape") show(held = null);
    if (!step || !sentence) return;
    const words = [...sentence.querySelectorAll("[data-word]")];
    const index = words.indexOf(shown);
    held = words[index < 0 ? (step > 0 ? 0 : words.length - 1) : (index + step + words.length) % words.length];
    show(held);
    event.preventDefault();
  });
}
