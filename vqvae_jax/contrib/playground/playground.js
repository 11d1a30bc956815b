"use strict";
{
  const root = document.querySelector(".playground");
  const facts = JSON.parse(root.querySelector("script").textContent);
  const [rows, columns, books] = facts.grid;
  const [height, width, channels] = facts.size;
  const find = (selector) => root.querySelector(selector);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const heat = bytes(facts.heat);
  const pictures = facts.pictures.map((each) => ({
    ...each,
    original: bytes(each.original),
    decoded: bytes(each.decoded),
    inflated: new Map(),
  }));

  // The changes map a code's index in the grid to an index into the palette.
  const state = { picture: pictures[0], book: 0, cell: null, changes: new Map() };
  let history = [];
  let drawn = 0;

  const indexOf = (cell) => cell * books + state.book;
  const originalCode = (cell) => state.picture.codes[indexOf(cell)];
  const choiceAt = (cell) => state.changes.get(indexOf(cell));
  const codeAt = (cell) =>
    choiceAt(cell) === undefined
      ? originalCode(cell)
      : facts.palette[choiceAt(cell)][state.book];
  const nameOf = (cell) =>
    `Row ${Math.floor(cell / columns) + 1}, column ${(cell % columns) + 1}`;

  function changesOf(picture, choice) {
    if (!picture.inflated.has(choice)) {
      const packed = new Blob([bytes(picture.changes[choice])]).stream();
      const stream = packed.pipeThrough(new DecompressionStream("deflate"));
      const content = new Response(stream).arrayBuffer();
      picture.inflated.set(choice, content.then((buffer) => new Uint8Array(buffer)));
    }
    return picture.inflated.get(choice);
  }

  // The decoder's output after all changes: their differences are added.
  async function changed(picture, changes) {
    const sum = Int32Array.from(picture.decoded);
    for (const [index, choice] of changes) {
      const all = await changesOf(picture, choice);
      const start = index * sum.length;
      for (let j = 0; j < sum.length; j++) {
        const value = (picture.decoded[j] + all[start + j]) & 255;
        sum[j] += value - picture.decoded[j];
      }
    }
    return Uint8ClampedArray.from(sum);
  }

  function paint(canvas, colourOf) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    for (let i = 0; i < canvas.width * canvas.height; i++) {
      image.data.set(colourOf(i), 4 * i);
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  function paintPixels(canvas, values) {
    const channel = (i, c) => i * channels + (channels === 1 ? 0 : c);
    paint(canvas, (i) => [0, 1, 2].map((c) => values[channel(i, c)]));
  }

  async function show() {
    const request = ++drawn;
    const { picture } = state;
    const values = await changed(picture, state.changes);
    // Another choice was made while this one was being inflated.
    if (request !== drawn) return;
    const errors = Array.from({ length: width * height }, (_, i) => {
      let sum = 0;
      for (let j = i * channels; j < (i + 1) * channels; j++) {
        sum += Math.abs(values[j] - picture.decoded[j]);
      }
      return sum / channels;
    });
    const part = (i) => Math.min(255, Math.round((255 * errors[i]) / facts.shown));
    paintPixels(find(".original"), picture.original);
    paintPixels(find(".before"), picture.decoded);
    paintPixels(find(".decoded"), values);
    paint(find(".changed"), (i) => heat.subarray(3 * part(i), 3 * part(i) + 3));
    updateSwatches();
    updateStatus(errors);
    updateMark();
    find(".undo").disabled = history.length === 0;
    find(".reset").disabled = state.changes.size === 0 && state.cell === null;
  }

  function updateStatus(errors) {
    const status = find("[role=status]");
    const { cell, changes } = state;
    const several = changes.size > 1 ? `After ${changes.size} changes ` : "";
    const count = errors.filter((error) => error > 0).length;
    const largest = Math.round(Math.max(...errors));
    const effect =
      `${several}${count} of ${errors.length} pixels change, ` +
      `by at most ${largest} of 255.`;
    if (cell === null) {
      status.textContent = "Select a cell, then a new code.";
    } else if (choiceAt(cell) === undefined) {
      const next = changes.size > 0 ? effect : "Select a new code.";
      status.textContent = `${nameOf(cell)}: code ${originalCode(cell)}. ${next}`;
    } else {
      status.textContent =
        `${nameOf(cell)}: code ${originalCode(cell)} replaced by ${codeAt(cell)}. ` +
        effect;
    }
  }

  function updateMark() {
    const mark = find(".mark");
    mark.hidden = state.cell === null;
    if (mark.hidden) return;
    mark.style.width = `${100 / columns}%`;
    mark.style.height = `${100 / rows}%`;
    mark.style.left = `${(100 * (state.cell % columns)) / columns}%`;
    mark.style.top = `${(100 * Math.floor(state.cell / columns)) / rows}%`;
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
    const colour = facts.colours[state.book][code];
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

  function select(cell) {
    state.cell = cell;
    show();
  }

  function change(choice) {
    if (state.cell === null) {
      show();
      return;
    }
    history.push({ changes: new Map(state.changes), cell: state.cell });
    const index = indexOf(state.cell);
    // A code that is chosen again is no change.
    if (facts.palette[choice][state.book] === originalCode(state.cell)) {
      state.changes.delete(index);
    } else {
      state.changes.set(index, choice);
    }
    show();
  }

  function reset() {
    history = [];
    Object.assign(state, { cell: null, changes: new Map() });
    show();
  }

  const cells = radios(find(".cells"), rows * columns, "cell", select);
  const choices = radios(find(".codes"), facts.palette.length, "code", change);

  function updateSwatches() {
    cells.forEach((label, cell) => {
      const code = codeAt(cell);
      const isChanged = choiceAt(cell) !== undefined;
      const name = `${nameOf(cell)}: code ${code}${isChanged ? ", changed" : ""}`;
      updateSwatch(label, code, name, columns <= 8);
      label.firstChild.checked = cell === state.cell;
      label.classList.toggle("edited", isChanged);
    });
    choices.forEach((label, choice) => {
      const code = facts.palette[choice][state.book];
      updateSwatch(label, code, `code ${code}`, true);
      label.firstChild.checked = state.cell !== null && codeAt(state.cell) === code;
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
    state.book = event.target.selectedIndex;
    show();
  });
  find(".picture")?.addEventListener("change", (event) => {
    state.picture = pictures[event.target.selectedIndex];
    reset();
  });
  find(".undo").addEventListener("click", () => {
    Object.assign(state, history.pop());
    show();
  });
  find(".reset").addEventListener("click", reset);

  for (const canvas of root.querySelectorAll("canvas")) {
    Object.assign(canvas, { width, height });
  }
  Object.assign(find(".heat"), { width: 256, height: 1 });
  paint(find(".heat"), (i) => heat.subarray(3 * i, 3 * i + 3));
  find(".cells").style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
  updateSwatches();
  root.hidden = false;

  // Start with a change, so that the effect is visible at once.
  const [cell, choice] = state.picture.start;
  select(cell);
  change(choice);
}
