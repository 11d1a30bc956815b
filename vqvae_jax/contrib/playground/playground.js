"use strict";
{
  const root = document.querySelector(".playground");
  const facts = JSON.parse(root.querySelector("script").textContent);
  const [rows, columns, books] = facts.grid;
  const [height, width, channels] = facts.size;
  const find = (selector) => root.querySelector(selector);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const picture = bytes(facts.picture);
  const heat = bytes(facts.heat);
  const chosen = { book: 0, cell: null, choice: null };

  const codeAt = (cell) => facts.codes[cell * books + chosen.book];
  const nameOf = (cell) =>
    `Row ${Math.floor(cell / columns) + 1}, column ${(cell % columns) + 1}`;

  const inflated = new Map();
  function changesOf(choice) {
    if (!inflated.has(choice)) {
      const packed = new Blob([bytes(facts.changes[choice])]).stream();
      const stream = packed.pipeThrough(new DecompressionStream("deflate"));
      const content = new Response(stream).arrayBuffer();
      inflated.set(choice, content.then((buffer) => new Uint8Array(buffer)));
    }
    return inflated.get(choice);
  }

  // Values to add to the picture, modulo 256; null if no change is selected.
  async function selectedChange() {
    if (chosen.cell === null || chosen.choice === null) return null;
    const all = await changesOf(chosen.choice);
    const start = (chosen.cell * books + chosen.book) * picture.length;
    return all.subarray(start, start + picture.length);
  }

  function paint(canvas, colourOf) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    for (let i = 0; i < width * height; i++) {
      image.data.set(colourOf(i), 4 * i);
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  async function show() {
    const requested = { ...chosen };
    const added = await selectedChange();
    // Another choice was made while this one was being inflated.
    if (Object.keys(requested).some((key) => requested[key] !== chosen[key])) return;
    const channel = (i, c) => i * channels + (channels === 1 ? 0 : c);
    const value = (j) => (picture[j] + (added ? added[j] : 0)) & 255;
    const colour = (i) => [0, 1, 2].map((c) => value(channel(i, c)));
    const errors = Array.from({ length: width * height }, (_, i) => {
      let sum = 0;
      for (let j = i * channels; j < (i + 1) * channels; j++) {
        sum += Math.abs(value(j) - picture[j]);
      }
      return sum / channels;
    });
    const part = (i) => Math.min(255, Math.round((255 * errors[i]) / facts.shown));
    paint(find(".decoded"), colour);
    paint(find(".changed"), (i) => heat.subarray(3 * part(i), 3 * part(i) + 3));
    updateStatus(errors);
  }

  function updateStatus(errors) {
    const status = find("[role=status]");
    if (chosen.cell === null) {
      status.textContent = "Select a cell, then a new code.";
    } else if (chosen.choice === null) {
      status.textContent =
        `${nameOf(chosen.cell)}: code ${codeAt(chosen.cell)}. Select a new code.`;
    } else {
      const count = errors.filter((error) => error > 0).length;
      const largest = Math.round(Math.max(...errors));
      const code = facts.palette[chosen.choice][chosen.book];
      status.textContent =
        `${nameOf(chosen.cell)}: code ${codeAt(chosen.cell)} replaced by ${code}. ` +
        `${count} of ${errors.length} pixels change, by at most ${largest} of 255.`;
    }
    const mark = find(".mark");
    mark.hidden = chosen.cell === null;
    if (!mark.hidden) {
      mark.style.width = `${100 / columns}%`;
      mark.style.height = `${100 / rows}%`;
      mark.style.left = `${(100 * (chosen.cell % columns)) / columns}%`;
      mark.style.top = `${(100 * Math.floor(chosen.cell / columns)) / rows}%`;
    }
  }

  // Black or white, whichever contrasts more with a colour.
  function textColourOn(colour) {
    const [r, g, b] = [1, 3, 5].map((i) => {
      const part = parseInt(colour.slice(i, i + 2), 16) / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000000" : "#ffffff";
  }

  function updateSwatch(label, code, name, shown) {
    const [input, swatch] = label.children;
    const colour = facts.colours[chosen.book][code];
    input.setAttribute("aria-label", name);
    swatch.style.background = colour;
    swatch.style.color = textColourOn(colour);
    swatch.textContent = shown ? code : "";
  }

  function radios(parent, count, group, choose) {
    return Array.from({ length: count }, (_, index) => {
      const label = document.createElement("label");
      const input = document.createElement("input");
      const swatch = document.createElement("span");
      input.type = "radio";
      input.name = group;
      input.addEventListener("change", () => choose(index));
      swatch.className = "swatch";
      swatch.ariaHidden = "true";
      label.append(input, swatch);
      parent.append(label);
      return label;
    });
  }

  const cells = radios(find(".cells"), rows * columns, "cell", (cell) => {
    chosen.cell = cell;
    show();
  });
  const choices = radios(find(".codes"), facts.palette.length, "code", (choice) => {
    chosen.choice = choice;
    show();
  });

  function updateSwatches() {
    cells.forEach((label, cell) => {
      const code = codeAt(cell);
      updateSwatch(label, code, `${nameOf(cell)}: code ${code}`, columns <= 8);
    });
    choices.forEach((label, choice) => {
      const code = facts.palette[choice][chosen.book];
      updateSwatch(label, code, `code ${code}`, true);
    });
  }

  // By default all arrow keys move along the row; make up and down change the row.
  find(".cells").addEventListener("keydown", (event) => {
    const step = { ArrowUp: -columns, ArrowDown: columns }[event.key];
    const from = cells.findIndex((label) => label.contains(event.target));
    if (step === undefined || from < 0) return;
    event.preventDefault();
    const to = cells[from + step];
    if (!to) return;
    to.firstChild.focus();
    to.firstChild.click();
  });
  find(".codebook")?.addEventListener("change", (event) => {
    chosen.book = event.target.selectedIndex;
    updateSwatches();
    show();
  });
  find(".reset").addEventListener("click", () => {
    for (const input of root.querySelectorAll("input")) input.checked = false;
    Object.assign(chosen, { cell: null, choice: null });
    show();
  });

  for (const canvas of root.querySelectorAll("canvas")) {
    Object.assign(canvas, { width, height });
  }
  find(".cells").style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
  updateSwatches();
  show();
  root.hidden = false;

  // Start with a change, so that the effect is visible at once.
  const [cell, choice] = facts.start;
  cells[cell].firstChild.click();
  choices[choice].firstChild.click();
}
