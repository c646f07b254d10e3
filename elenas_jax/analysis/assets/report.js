(function () {
  "use strict";
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const tip = document.getElementById("tip");
  const SVG = "http://www.w3.org/2000/svg";

  // What a pointer shows. Text goes in as text, never as markup.

  function add(parent, name, words) {
    const element = document.createElement(name);
    if (words !== undefined) element.textContent = words;
    parent.appendChild(element);
    return element;
  }

  function showTip(event, title, rows, equations) {
    tip.textContent = "";
    add(tip, "b", title);
    for (const row of rows) {
      const line = add(tip, "div");
      const label = add(line, "span");
      if (row.css) add(label, "i").className = "key " + row.css;
      label.appendChild(document.createTextNode(row.name));
      add(line, "em", row.value);
    }
    if (equations) add(tip, "pre", equations);
    tip.hidden = false;
    const room = 14;
    let left = event.clientX + room;
    if (left + tip.offsetWidth > innerWidth - 8) left = event.clientX - room - tip.offsetWidth;
    let top = event.clientY + room;
    if (top + tip.offsetHeight > innerHeight - 8) top = event.clientY - room - tip.offsetHeight;
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = Math.max(8, top) + "px";
  }

  function place(svg, event) {
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale, scale];
  }

  function nearest(values, wanted) {
    let best = 0;
    values.forEach(function (value, i) {
      if (Math.abs(value - wanted) < Math.abs(values[best] - wanted)) best = i;
    });
    return best;
  }

  function number(value) {
    const size = Math.abs(value);
    const digits = size >= 1000 || Number.isInteger(value) ? 0 : size >= 1 ? 3 : 4;
    if (size > 0 && size < 0.001) return value.toPrecision(3);
    return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  }

  function lines(figure, chart) {
    const svg = figure.querySelector("svg");
    const marks = document.createElementNS(SVG, "g");
    svg.appendChild(marks);
    const [low, high, start, end] = chart.scale;

    function mark(name, css, attributes) {
      const element = document.createElementNS(SVG, name);
      element.setAttribute("class", css);
      for (const key in attributes) element.setAttribute(key, attributes[key]);
      marks.appendChild(element);
    }

    function hide() {
      marks.textContent = "";
      tip.hidden = true;
    }

    function show(event) {
      const at = nearest(chart.px, place(svg, event)[0]);
      const x = chart.px[at];
      marks.textContent = "";
      mark("path", "cross", { d: "M" + x + "," + start + "V" + end });
      const rows = [];
      for (const row of chart.rows) {
        const value = row.y[at];
        if (value === null || (row.unit && value === 0)) continue;
        let words = row.unit ? value.toFixed(1) + row.unit : number(value);
        if (row.low && row.high[at] > row.low[at]) {
          words += " (" + number(row.low[at]) + " to " + number(row.high[at]) + ")";
        } else if (!row.unit) {
          words = number(value);
        }
        rows.push({ name: row.name, css: row.css, value: words });
        if (!row.unit) {
          const y = start + ((value - low) / (high - low)) * (end - start);
          mark("circle", "focus " + row.css, { cx: x, cy: y.toFixed(1), r: 4.5 });
        }
      }
      showTip(event, chart.label + " " + chart.x[at].toLocaleString("en"), rows, "");
    }

    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", hide);
  }

  function points(figure) {
    const svg = figure.querySelector("svg");
    const circles = Array.from(svg.querySelectorAll("circle.point"), function (element) {
      const value = function (name) { return Number(element.getAttribute(name)); };
      return { element: element, x: value("cx"), y: value("cy"), i: value("data-i") };
    });
    let near = null;

    function hide() {
      if (near) near.element.classList.remove("near");
      near = null;
      svg.style.cursor = "";
      tip.hidden = true;
    }

    function show(event) {
      const [x, y, scale] = place(svg, event);
      let best = null;
      let least = 22 * scale;
      for (const circle of circles) {
        const distance = Math.hypot(circle.x - x, circle.y - y);
        if (distance <= least) { least = distance; best = circle; }
      }
      hide();
      if (!best) return;
      near = best;
      near.element.classList.add("near");
      svg.style.cursor = link(near) ? "pointer" : "";
      const [hash, score, parameters, flops, generation, seed, metrics, equations] = data.points[near.i];
      const rows = [{ name: "score", value: score }];
      data.tasks.forEach(function (task, i) { rows.push({ name: task, value: metrics[i] }); });
      rows.push({ name: "parameters", value: parameters }, { name: "FLOPs", value: flops });
      rows.push({ name: "generation", value: generation });
      if (data.several) rows.push({ name: "seed", value: seed });
      showTip(event, "block " + hash, rows, equations);
    }

    function link(circle) {
      return circle.element.closest("a");
    }

    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", hide);
    // A click near a point counts as one on it.
    svg.addEventListener("click", function (event) {
      if (near && link(near) && !event.target.closest("a")) location.hash = link(near).getAttribute("href");
    });
  }

  for (const figure of document.querySelectorAll("figure.chart")) {
    const chart = data.charts[figure.dataset.chart];
    if (chart && chart.rows) lines(figure, chart);
    if (figure.dataset.chart === "trade_off" && data.points.length) points(figure);
  }

  // Tables: numbers begin with the largest, words with the first; what has no value stays last.

  function sortable(table) {
    const heads = Array.from(table.tHead.rows[0].cells);
    const body = table.tBodies[0];
    heads.forEach(function (head, column) {
      const isNumber = head.classList.contains("number");
      head.querySelector("button").addEventListener("click", function () {
        const before = head.getAttribute("aria-sort");
        const rising = before ? before === "descending" : !isNumber;
        heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", rising ? "ascending" : "descending");
        const key = function (row) { return row.cells[column].dataset.value; };
        const sorted = Array.from(body.rows).sort(function (a, b) {
          const first = key(a);
          const second = key(b);
          if (first === undefined || second === undefined) return (first === undefined) - (second === undefined);
          const order = isNumber ? Number(first) - Number(second) : first.localeCompare(second, "en");
          return rising ? order : -order;
        });
        sorted.forEach(function (row) { body.appendChild(row); });
      });
    });
  }

  document.querySelectorAll("table.sortable").forEach(sortable);

  const search = document.getElementById("search");
  if (search) {
    search.addEventListener("input", function () {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of document.getElementById("best").tBodies[0].rows) {
        const text = (row.textContent + " " + (row.dataset.words || "")).toLowerCase();
        row.hidden = !words.every(function (word) { return text.includes(word); });
      }
    });
  }
})();
