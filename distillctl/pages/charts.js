"use strict";
// Draws the charts of a page. Names come from elsewhere: they are only ever set as text.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const LEFT = 60, RIGHT = 18, TOP = 8, BOTTOM = 34, COLOURS = 8, TOLD = 12;

  function put(parent, name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return parent.appendChild(made);
  }

  function html(parent, name, text, className) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return parent.appendChild(made);
  }

  // Round numbers from low to high, about `count` of them.
  function ticks(low, high, count) {
    const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
    return found;
  }

  function powers(low, high) {
    const found = [], first = Math.floor(low), last = Math.ceil(high), every = Math.max(1, Math.ceil((last - first) / 6));
    const within = last - first <= 3 ? [1, 2, 5] : [1];
    for (let i = first; i <= last; i += every) {
      for (const factor of within) {
        const at = i + Math.log10(factor);
        if (at >= low - 1e-9 && at <= high + 1e-9) found.push(at);
      }
    }
    return found;
  }

  function shown(value, percent) {
    if (percent) return `${+(value * 100).toPrecision(4)}%`;
    return Math.abs(value) >= 1e6 || (value !== 0 && Math.abs(value) < 1e-4) ? value.toExponential(2) : String(+value.toPrecision(4));
  }

  class Chart {
    constructor(figure) {
      this.figure = figure;
      this.data = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
      this.plot = figure.querySelector(".plot");
      this.hidden = new Set();
      this.range = null;
      const values = this.data.lines.flatMap((line) => line.y.filter((y) => y !== null));
      this.positive = values.length > 0 && values.every((y) => y > 0);
      const least = values.reduce((a, b) => Math.min(a, b), Infinity), most = values.reduce((a, b) => Math.max(a, b), -Infinity);
      this.log = this.positive && this.data.log && most / least > 30;
      this.tools = html(figure, "div", undefined, "tools");
      this.tip = html(figure, "div", undefined, "tip");
      this.tip.hidden = true;
      if (this.positive && !this.data.diagonal && most > least) this.button(this.tools, "log", () => { this.log = !this.log; this.draw(); });
      this.whole = this.button(this.tools, "whole", () => this.zoom(null));
      const legend = figure.querySelector(".legend");
      this.data.lines.forEach((line, i) => {
        const entry = this.button(legend, line.name, () => {
          this.hidden.has(i) ? this.hidden.delete(i) : this.hidden.add(i);
          entry.setAttribute("aria-pressed", String(!this.hidden.has(i)));
          this.draw();
        });
        entry.setAttribute("aria-pressed", "true");
        entry.style.setProperty("--colour", this.colour(line));
      });
      new ResizeObserver(() => this.draw()).observe(this.plot);
      this.draw();
    }

    button(parent, text, pressed) {
      const made = html(parent, "button", text);
      made.type = "button";
      made.addEventListener("click", pressed);
      return made;
    }

    colour(line) {
      return `var(--c${line.colour % COLOURS})`;
    }

    zoom(range) {
      this.range = range;
      this.draw();
    }

    // Points of the visible lines within the range: {line, points: [[x, y, spread], …]}.
    visible() {
      const inside = (x) => !this.range || (x >= this.range[0] && x <= this.range[1]);
      return this.data.lines.filter((_, i) => !this.hidden.has(i)).map((line) => ({
        line,
        points: line.x.map((x, i) => [x, line.y[i], line.spread ? line.spread[i] : 0, line.weight ? line.weight[i] : 0]).filter(([x]) => inside(x)),
      }));
    }

    draw() {
      const width = Math.max(240, this.plot.clientWidth), height = 250;
      const data = this.data, found = this.visible(), all = found.flatMap((one) => one.points).filter(([, y]) => y !== null);
      this.whole.hidden = !this.range;
      this.tip.hidden = true;
      this.plot.textContent = "";
      const svg = put(this.plot, "svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", tabindex: 0, "aria-label": data.title });
      this.figure.dataset.points = all.length;
      if (!all.length) return;
      const scale = this.log ? Math.log10 : (y) => y;
      let [x0, x1] = this.range || [Infinity, -Infinity], y0 = Infinity, y1 = -Infinity;
      for (const [x, y, spread] of all) {
        if (!this.range) { x0 = Math.min(x0, x); x1 = Math.max(x1, x); }
        y0 = Math.min(y0, this.log ? scale(y) : y - spread);
        y1 = Math.max(y1, this.log ? scale(y) : y + spread);
      }
      if (data.diagonal) { x0 = this.range ? x0 : 0; x1 = this.range ? x1 : 1; y0 = Math.min(y0, x0); y1 = Math.max(y1, x1); }
      if (x0 === x1) { x0 -= 0.5; x1 += 0.5; }
      const room = (y1 - y0) * 0.05 || Math.abs(y1) * 0.05 || 0.5;
      y0 -= room; y1 += room;
      const atX = (x) => LEFT + (x - x0) / (x1 - x0) * (width - LEFT - RIGHT);
      const atY = (y) => height - BOTTOM - (scale(y) - y0) / (y1 - y0) * (height - TOP - BOTTOM);
      for (const at of this.log ? powers(y0, y1) : ticks(y0, y1, 5)) {
        const value = this.log ? 10 ** at : at, y = atY(value);
        put(svg, "line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y });
        put(svg, "text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, shown(value, data.percent));
      }
      const whole = (value) => data.x !== "epoch" || Number.isInteger(value);
      for (const value of ticks(x0, x1, Math.max(2, Math.min(8, Math.floor(width / 70)))).filter(whole)) {
        put(svg, "text", { x: atX(value), y: height - BOTTOM + 15, "text-anchor": "middle" }, shown(value, data.xPercent));
      }
      put(svg, "text", { x: (LEFT + width - RIGHT) / 2, y: height - 4, "text-anchor": "middle" }, data.x);
      if (data.diagonal) put(svg, "line", { class: "diagonal", x1: atX(x0), y1: atY(x0), x2: atX(x1), y2: atY(x1) });
      for (const { line, points } of found) {
        const colour = this.colour(line), there = points.filter(([, y]) => y !== null);
        if (line.spread && !this.log && there.length > 1) {
          const edge = [...there.map(([x, y, s]) => [x, y + s]), ...there.slice().reverse().map(([x, y, s]) => [x, y - s])];
          put(svg, "polygon", { points: edge.map(([x, y]) => `${atX(x)},${atY(y)}`).join(" "), style: `fill:${colour};opacity:.18` });
        }
        let pen = "M";
        const path = points.map(([x, y]) => {
          if (y === null) { pen = "M"; return ""; }
          const step = `${pen}${atX(x).toFixed(1)},${atY(y).toFixed(1)}`;
          pen = "L";
          return step;
        }).join("");
        const dash = ["", "6 3", "2 3"][Math.floor(line.colour / COLOURS) % 3];
        put(svg, "path", { class: "line", d: path, style: `stroke:${colour};stroke-dasharray:${dash || "none"}` });
        if (there.length <= 40) {
          for (const [x, y, , weight] of there) {
            put(svg, "circle", { cx: atX(x), cy: atY(y), r: 2.4 + 7 * Math.sqrt(weight), style: `fill:${colour};opacity:${weight ? 0.6 : 1}` });
          }
        }
      }
      this.listen(svg, found, atX, atY, width, height, (pixel) => x0 + (pixel - LEFT) / (width - LEFT - RIGHT) * (x1 - x0));
    }

    listen(svg, found, atX, atY, width, height, back) {
      const cursor = put(svg, "line", { class: "cursor", y1: TOP, y2: height - BOTTOM, visibility: "hidden" });
      const choice = put(svg, "rect", { class: "choice", y: TOP, height: height - TOP - BOTTOM, width: 0 });
      const places = [...new Set(found.flatMap((one) => one.points.filter(([, y]) => y !== null).map(([x]) => x)))].sort((a, b) => a - b);
      let begun = null, place = null;
      const at = (event) => {
        const box = svg.getBoundingClientRect();
        return Math.min(width - RIGHT, Math.max(LEFT, (event.clientX - box.left) * width / box.width));
      };
      const tell = (x, y) => {
        place = x;
        cursor.setAttribute("x1", atX(x)); cursor.setAttribute("x2", atX(x)); cursor.setAttribute("visibility", "visible");
        const rows = found.flatMap(({ line, points }) => points.filter((p) => p[0] === x && p[1] !== null).map((p) => ({ line, y: p[1], s: p[2], w: p[3] })));
        if (y !== undefined) rows.sort((a, b) => Math.abs(atY(a.y) - y) - Math.abs(atY(b.y) - y));
        this.tip.textContent = "";
        html(this.tip, "div", `${this.data.x} ${shown(x, this.data.xPercent)}`);
        for (const row of rows.slice(0, TOLD)) {
          const text = html(this.tip, "div");
          html(text, "i").style.background = this.colour(row.line);
          const spread = row.line.spread ? ` ± ${shown(row.s, this.data.percent)}` : "";
          const weight = row.line.weight ? `, ${shown(row.w, true)} of the images` : "";
          text.append(`${row.line.name} ${shown(row.y, this.data.percent)}${spread}${weight}`);
        }
        if (rows.length > TOLD) html(this.tip, "div", `and ${rows.length - TOLD} more`);
        this.tip.hidden = false;
        const middle = atX(x) > width / 2;
        this.tip.style.top = `${this.plot.offsetTop + TOP}px`;
        this.tip.style.left = middle ? "" : `${atX(x) + 18}px`;
        this.tip.style.right = middle ? `${width - atX(x) + 18}px` : "";
      };
      const nearest = (x) => places.reduce((best, one) => (Math.abs(one - x) < Math.abs(best - x) ? one : best));
      const leave = () => { this.tip.hidden = true; cursor.setAttribute("visibility", "hidden"); };
      svg.addEventListener("pointerdown", (event) => { begun = at(event); svg.setPointerCapture(event.pointerId); });
      svg.addEventListener("pointermove", (event) => {
        const pixel = at(event), box = svg.getBoundingClientRect();
        tell(nearest(back(pixel)), (event.clientY - box.top) * height / box.height);
        if (begun !== null) {
          choice.setAttribute("x", Math.min(begun, pixel));
          choice.setAttribute("width", Math.abs(pixel - begun));
        }
      });
      svg.addEventListener("pointerup", (event) => {
        const ends = begun === null ? [] : [begun, at(event)].sort((a, b) => a - b);
        begun = null;
        if (ends.length && ends[1] - ends[0] > 8) this.zoom(ends.map(back));
      });
      svg.addEventListener("pointercancel", () => { begun = null; choice.setAttribute("width", 0); });
      svg.addEventListener("pointerleave", leave);
      svg.addEventListener("blur", leave);
      svg.addEventListener("dblclick", () => this.zoom(null));
      svg.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (event.key === "Escape") this.zoom(null);
        if (!step) return;
        event.preventDefault();
        tell(places[Math.min(places.length - 1, Math.max(0, (place === null ? -1 : places.indexOf(place)) + step))]);
      });
    }
  }

  for (const figure of document.querySelectorAll("figure.chart")) new Chart(figure);
})();
