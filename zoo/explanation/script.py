"""The page's script: choosing layer, head and query, and drawing what is chosen."""

from __future__ import annotations

SCRIPT = r"""
"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const el = (tag, attributes = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
};
const show = (word) =>
  word === "" ? "∅" : word.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/^ +$/, "␣");
const colorOf = (table, share) =>
  DATA.tables[table][Math.round(255 * Math.min(1, Math.max(0, share)))];
const css = (rgb) => `rgb(${rgb.join(",")})`;
const ink = ([r, g, b]) => (0.299 * r + 0.587 * g + 0.114 * b < 140 ? "#fff" : "#1b1b1b");

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

class Maps {
  constructor(part, codes, picture, home) {
    Object.assign(this, part, { codes, picture, home });
    [this.L, this.N, this.T, this.S] = part.shape;
    this.layer = this.L - 1;
    this.head = this.N > 1 ? -1 : 0;
    this.query = part.start === null ? -1 : part.start;
    this.means = {};
    this.build();
    this.draw();
  }
  // A matrix of numbers, row by row; head -1 is the mean of all.
  matrix(layer, head) {
    const size = this.T * this.S;
    const read = (h) => {
      const from = (layer * this.N + h) * size, out = new Float32Array(size);
      for (let i = 0; i < size; i++) out[i] = (this.codes[from + i] / 255) ** 2 * this.most;
      return out;
    };
    if (head >= 0) return read(head);
    if (!this.means[layer]) {
      const sum = new Float32Array(size);
      for (let h = 0; h < this.N; h++) read(h).forEach((x, i) => { sum[i] += x / this.N; });
      this.means[layer] = sum;
    }
    return this.means[layer];
  }
  // One query's weights; query -1 is the mean of all.
  row(matrix) {
    if (this.query >= 0) return matrix.slice(this.query * this.S, (this.query + 1) * this.S);
    const out = new Float32Array(this.S);
    matrix.forEach((x, i) => { out[i % this.S] += x / this.T; });
    return out;
  }
  build() {
    const controls = el("div", { className: "controls" });
    const choose = (label, count, first, key) => {
      const select = el("select", { ariaLabel: label });
      first.forEach(([value, text]) => select.append(el("option", { value, textContent: text })));
      for (let i = 0; i < count; i++) {
        select.append(el("option", { value: i, textContent: i + 1 }));
      }
      select.value = this[key];
      select.onchange = () => { this[key] = Number(select.value); this.draw(); };
      this[key + "Select"] = select;
      controls.append(el("label", {}, label + " ", select));
    };
    if (this.L > 1) choose("Layer", this.L, [], "layer");
    if (this.N > 1) choose("Head", this.N, [[-1, "mean of all"]], "head");
    this.mean = el("button", { textContent: "mean of all queries" });
    this.mean.onclick = () => { this.query = -1; this.draw(); };
    controls.append(this.mean);
    this.home.append(controls);
    this.told = el("p", { className: "told" });
    this.scale = el("span");
    const area = el("div", { className: "row" });
    this.keys.grid ? this.buildImage(controls, area) : this.buildText(area);
    this.home.append(area, this.told);
    const table = this.keys.grid ? "HEAT" : "POSITIVE";
    const stops = [0, 64, 128, 192, 255].map((i) => css(DATA.tables[table][i])).join(",");
    const bar = el("i", { style: `background: linear-gradient(90deg, ${stops})` });
    this.home.append(el("p", { className: "legend" }, "0", bar, this.scale));
    if (this.L * this.N > 1) this.buildOverview();
  }
  buildText(area) {
    const same = this.queries.name === this.keys.name && this.T === this.S;
    const left = el("div", { style: "flex: 1 1 380px; min-width: 300px" });
    const line = (axis, pick) => {
      const home = el("div", { className: "words" + (pick ? " pick" : "") });
      axis.words.forEach((word, i) => {
        const chip = el("span", { className: "chip", textContent: show(word) });
        if (pick) chip.onclick = () => { this.query = i; this.draw(); };
        home.append(chip);
        if (word.includes("\n")) home.append(el("br"));
      });
      return home;
    };
    this.chips = line(this.keys, same);
    this.from = same ? this.chips : line(this.queries, true);
    if (!same) {
      left.append(el("div", { className: "soft", textContent: `${this.queries.name}: choose` }));
      left.append(this.from);
    }
    const hint = same ? "choose a token; colours: what it looks at" : "what it looks at";
    left.append(el("div", { className: "soft", textContent: `${this.keys.name}: ${hint}` }));
    left.append(this.chips);
    this.canvas = el("canvas");
    const scroll = el("div", { className: "scroll" }, this.canvas);
    this.caption = el("figcaption");
    area.append(left, el("figure", {}, scroll, this.caption));
    this.canvas.onclick = (event) => {
      const [t] = this.at(event);
      if (t >= 0 && t < this.T) { this.query = t; this.draw(); }
    };
    this.canvas.onmousemove = (event) => {
      const [t, s] = this.at(event);
      if (t < 0 || s < 0 || t >= this.T || s >= this.S) return;
      const value = this.matrix(this.layer, this.head)[t * this.S + s];
      this.say(`${show(this.queries.words[t])} → ${show(this.keys.words[s])}: ${value.toFixed(3)}`);
    };
  }
  at(event) {
    return [Math.floor((event.offsetY - this.top) / this.cell),
            Math.floor((event.offsetX - this.side) / this.cell)];
  }
  buildImage(controls, area) {
    this.buttons = [];
    for (let i = 0; i < this.queries.before; i++) {
      const button = el("button", { textContent: this.queries.words[i] });
      button.onclick = () => { this.query = i; this.draw(); };
      this.buttons.push(button);
      controls.append(button);
    }
    controls.append(el("span", { className: "soft", textContent: "or click on a patch" }));
    const [height, width] = [this.picture.naturalHeight, this.picture.naturalWidth];
    const times = Math.max(1, Math.floor(340 / Math.max(height, width)));
    this.size = [width * times, height * times];
    const plain = el("canvas", { width: this.size[0], height: this.size[1] });
    const pen = plain.getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.drawImage(this.picture, 0, 0, ...this.size);
    this.canvas = el("canvas", { width: this.size[0], height: this.size[1] });
    const told = (text) => el("figcaption", { textContent: text });
    area.append(el("figure", {}, plain, told("as the model sees it")));
    area.append(el("figure", {}, this.canvas, told("where the chosen query looks")));
    const [rows, columns] = this.keys.grid;
    const find = (event) => this.queries.before + columns * Math.min(rows - 1, Math.floor(
      event.offsetY * rows / this.size[1])) + Math.min(columns - 1, Math.floor(
      event.offsetX * columns / this.size[0]));
    plain.onclick = this.canvas.onclick = (event) => { this.query = find(event); this.draw(); };
    this.canvas.onmousemove = (event) => {
      const value = this.row(this.matrix(this.layer, this.head))[find(event)];
      this.say(`${this.keys.words[find(event)]}: ${value.toFixed(3)}`);
    };
    const ground = el("canvas", { width, height }).getContext("2d");
    ground.drawImage(this.picture, 0, 0);
    this.pixels = ground.getImageData(0, 0, width, height).data;
  }
  buildOverview() {
    const text = this.keys.grid
      ? "All layers (rows) and heads (columns) for the chosen query; each on a scale of its own."
      : "All layers (rows) and heads (columns); each map on a scale of its own.";
    this.over = el("canvas");
    this.home.append(el("h2", { textContent: text, style: "font-size:14px;margin:18px 0 8px" }));
    this.home.append(el("div", { className: "scroll" }, this.over));
    this.over.onclick = (event) => {
      const layer = Math.floor((event.offsetY - 18) / this.tile);
      const head = Math.floor((event.offsetX - 26) / this.tile);
      if (layer < 0 || head < 0 || layer >= this.L || head >= this.N) return;
      [this.layer, this.head] = [layer, head];
      this.draw();
    };
    if (!this.keys.grid) this.drawOverview();
  }
  say(text) { this.told.textContent = text; }
  draw() {
    if (this.layerSelect) this.layerSelect.value = this.layer;
    if (this.headSelect) this.headSelect.value = this.head;
    this.mean.classList.toggle("on", this.query < 0);
    const matrix = this.matrix(this.layer, this.head), row = this.row(matrix);
    const most = row.reduce((a, b) => Math.max(a, b), 0) || 1;
    this.scale.textContent = `${most.toPrecision(3)}, the most that this query gives`;
    const word = this.query < 0 ? "mean of all queries" : show(this.queries.words[this.query]);
    this.say(`chosen: ${word}`);
    if (this.keys.grid) {
      this.buttons.forEach((button, i) => button.classList.toggle("on", i === this.query));
      this.canvas.getContext("2d").drawImage(this.overlay(row, most, ...this.size), 0, 0);
      this.frame();
    } else {
      [...this.chips.querySelectorAll(".chip")].forEach((chip, i) => {
        const rgb = colorOf("POSITIVE", row[i] / most);
        Object.assign(chip.style, { background: css(rgb), color: ink(rgb) });
        chip.title = row[i].toFixed(4);
      });
      const from = [...this.from.querySelectorAll(".chip")];
      from.forEach((chip, i) => chip.classList.toggle("on", i === this.query));
      this.drawMatrix(matrix);
    }
    if (this.over && this.keys.grid) this.drawOverview();
    else if (this.over) this.markOverview();
  }
  // The picture in grey under the weights of its patches.
  overlay(row, most, width, height) {
    const canvas = el("canvas", { width, height }), pen = canvas.getContext("2d");
    const image = pen.createImageData(width, height), [rows, columns] = this.keys.grid;
    const [h, w] = [this.picture.naturalHeight, this.picture.naturalWidth];
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
      const patch = Math.floor(y * rows / height) * columns + Math.floor(x * columns / width);
      const share = Math.min(1, row[this.keys.before + patch] / most);
      const from = 4 * (Math.floor(y * h / height) * w + Math.floor(x * w / width));
      const p = this.pixels, grey = 0.299 * p[from] + 0.587 * p[from + 1] + 0.114 * p[from + 2];
      const alpha = DATA.over * Math.sqrt(share), rgb = colorOf("HEAT", share);
      const to = 4 * (y * width + x);
      for (let i = 0; i < 3; i++) image.data[to + i] = (1 - alpha) * grey + alpha * rgb[i];
      image.data[to + 3] = 255;
    }
    pen.putImageData(image, 0, 0);
    return canvas;
  }
  frame() {
    const patch = this.query - this.queries.before;
    if (patch < 0) return;
    const [rows, columns] = this.queries.grid, [width, height] = this.size;
    const pen = this.canvas.getContext("2d");
    pen.strokeStyle = "#00b7ff";
    pen.lineWidth = 3;
    pen.strokeRect((patch % columns) * width / columns + 1.5,
      Math.floor(patch / columns) * height / rows + 1.5, width / columns - 3, height / rows - 3);
  }
  dense() { return Math.max(this.T, this.S) > 32; }
  small(matrix) {
    const canvas = el("canvas", { width: this.S, height: this.T }), pen = canvas.getContext("2d");
    const image = pen.createImageData(this.S, this.T);
    const most = matrix.reduce((a, b) => Math.max(a, b), 0) || 1;
    matrix.forEach((x, i) => {
      const rgb = colorOf("POSITIVE", this.dense() ? Math.sqrt(x / most) : x / most);
      for (let j = 0; j < 3; j++) image.data[4 * i + j] = rgb[j];
      image.data[4 * i + 3] = 255;
    });
    pen.putImageData(image, 0, 0);
    return canvas;
  }
  drawMatrix(matrix) {
    const most = matrix.reduce((a, b) => Math.max(a, b), 0);
    const root = this.dense() ? "colours by the square root, " : "";
    this.caption.textContent =
      `rows: queries, columns: what they look at; ${root}the strongest is ${most.toPrecision(3)}`;
    const longest = Math.max(this.T, this.S), labels = longest <= 64;
    this.cell = labels ? Math.max(13, Math.min(30, Math.floor(420 / longest))) : Math.max(1,
      Math.floor(520 / longest));
    const font = `${Math.min(13, this.cell - 1)}px monospace`, pen = this.canvas.getContext("2d");
    pen.font = font;
    const cut = (word) => (show(word).trim() || show(word)).slice(0, 18);
    const room = (words) => labels ? 14 + Math.max(...words.map((w) =>
      pen.measureText(cut(w)).width)) : 0;
    this.side = room(this.queries.words);
    this.top = room(this.keys.words);
    this.canvas.width = this.side + this.S * this.cell + 2;
    this.canvas.height = this.top + this.T * this.cell + 2;
    pen.font = font;
    pen.imageSmoothingEnabled = false;
    pen.drawImage(this.small(matrix), this.side, this.top, this.S * this.cell, this.T * this.cell);
    pen.strokeStyle = "#c5c9d0";
    pen.strokeRect(this.side - 0.5, this.top - 0.5, this.S * this.cell + 1, this.T * this.cell + 1);
    if (this.query >= 0) {
      pen.strokeStyle = "#1b1b1b";
      pen.strokeRect(this.side, this.top + this.query * this.cell, this.S * this.cell, this.cell);
    }
    if (!labels) return;
    pen.fillStyle = "#1b1b1b";
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    this.queries.words.forEach((word, i) => {
      pen.fillText(cut(word), this.side - 6, this.top + (i + 0.5) * this.cell);
    });
    pen.textAlign = "left";
    this.keys.words.forEach((word, i) => {
      pen.save();
      pen.translate(this.side + (i + 0.5) * this.cell, this.top - 6);
      pen.rotate(-Math.PI / 2);
      pen.fillText(cut(word), 0, 0);
      pen.restore();
    });
  }
  drawOverview() {
    this.tile = Math.max(44, Math.min(110, Math.floor(960 / this.N)));
    this.over.width = 26 + this.N * this.tile;
    this.over.height = 18 + this.L * this.tile;
    const pen = this.over.getContext("2d"), inner = this.tile - 6;
    pen.font = "12px sans-serif";
    pen.fillStyle = "#5c6370";
    pen.imageSmoothingEnabled = false;
    for (let h = 0; h < this.N; h++) pen.fillText(h + 1, 26 + (h + 0.4) * this.tile, 12);
    for (let l = 0; l < this.L; l++) {
      pen.fillText(l + 1, 4, 18 + (l + 0.55) * this.tile);
      for (let h = 0; h < this.N; h++) {
        const [x, y] = [26 + h * this.tile + 3, 18 + l * this.tile + 3];
        const matrix = this.matrix(l, h);
        if (this.keys.grid) {
          const row = this.row(matrix), most = row.reduce((a, b) => Math.max(a, b), 0) || 1;
          const [w, t] = this.size, share = inner / Math.max(w, t);
          const sizes = [Math.round(w * share), Math.round(t * share)];
          pen.drawImage(this.overlay(row, most, ...sizes), x, y);
        } else {
          // Averaged, not picked, where a map has more cells than the tile has pixels.
          pen.imageSmoothingEnabled = Math.max(this.T, this.S) > inner;
          pen.imageSmoothingQuality = "high";
          pen.drawImage(this.small(matrix), x, y, inner, inner);
        }
      }
    }
    this.clean = pen.getImageData(0, 0, this.over.width, this.over.height);
    this.markOverview();
  }
  markOverview() {
    if (!this.clean) return;
    const pen = this.over.getContext("2d");
    pen.putImageData(this.clean, 0, 0);
    pen.lineWidth = 1;
    pen.strokeStyle = "#dfe2e7";
    for (let l = 0; l < this.L; l++) for (let h = 0; h < this.N; h++) {
      const on = l === this.layer && (h === this.head || this.head < 0);
      pen.strokeStyle = on ? "#1b1b1b" : "#dfe2e7";
      pen.lineWidth = on ? 2 : 1;
      pen.strokeRect(26 + h * this.tile + 2, 18 + l * this.tile + 2, this.tile - 4, this.tile - 4);
    }
  }
}

async function start() {
  for (const part of DATA.maps) {
    const home = document.getElementById(part.id);
    try {
      const codes = await unpack(part.codes);
      let picture = null;
      if (part.keys.picture) {
        picture = new Image();
        picture.src = part.keys.picture;
        await picture.decode();
      }
      home.textContent = "";
      new Maps(part, codes, picture, home);
    } catch (error) {
      home.textContent = `This browser cannot draw the maps (${error}); the PNG shows them.`;
      throw error;
    }
  }
  document.body.dataset.ready = "true";
}
start();
"""
