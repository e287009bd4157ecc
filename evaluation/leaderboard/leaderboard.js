"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

  // Elements are made by name and filled with text, never with markup: names are other people's.
  const make = (name, text, classes) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (classes) element.className = classes;
    return element;
  };
  const vector = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const percent = (value) => (typeof value === "number" ? value.toFixed(1) : "");

  // Sorting: a click or Enter on a column's name; rows without a value stay last, details stay with their row.
  const valueOf = (row, column, numeric) => {
    const cell = row.cells[column];
    if (!numeric) return cell.textContent.trim().toLowerCase() || null;
    return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  };
  const sortBy = (heading) => {
    const table = heading.closest("table");
    const numeric = heading.classList.contains("n");
    const first = numeric && !heading.hasAttribute("data-rising") ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const direction = heading.getAttribute("aria-sort") === first ? other : first;
    const column = heading.cellIndex;
    const body = table.tBodies[0];
    const pairs = all(":scope > tr.entry", body).map((row) => ({
      row,
      value: valueOf(row, column, numeric),
      details: row.nextElementSibling?.classList.contains("details") ? row.nextElementSibling : null,
    }));
    const sign = direction === "ascending" ? 1 : -1;
    pairs.sort((one, two) => {
      if (one.value === null || two.value === null) return (one.value === null) - (two.value === null);
      return sign * (numeric ? one.value - two.value : one.value.localeCompare(two.value));
    });
    const sorted = document.createDocumentFragment();
    for (const { row, details } of pairs) sorted.append(row, ...(details ? [details] : []));
    body.append(sorted);
    for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", direction);
  };

  // Curves: percent upwards, from `least` to `most`; frames or steps to the right.
  const chart = (series, title, { width = 220, height = 44, least = 0, most = 100 } = {}) => {
    const picture = vector("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img" });
    const name = vector("title", {});
    name.textContent = title;
    picture.append(name, vector("rect", { class: "frame", x: 0, y: 0, width, height }));
    series.forEach((points, number) => {
      const xs = points.map((point) => point[0]);
      const [low, high] = [Math.min(...xs), Math.max(...xs)];
      const place = ([x, y]) =>
        `${(((x - low) / (high - low || 1)) * width).toFixed(1)},${((1 - (y - least) / (most - least || 1)) * height).toFixed(1)}`;
      const known = points.filter((point) => typeof point[1] === "number");
      picture.append(vector("polyline", { class: "ab"[number] || "b", points: known.map(place).join(" ") }));
    });
    return picture;
  };
  const numbered = (values) => values.map((value, index) => [index, value]);

  const sequenceTable = (fact) => {
    const names = Object.keys(fact.per_sequence);
    const measures = fact.measures;
    const curved = Object.keys(Object.values(fact.curves)[0] || {}).slice(0, 2);
    const table = make("table");
    const head = table.createTHead().insertRow();
    const objects = Object.keys(fact.per_object).length > names.length;
    for (const word of ["sequence", ...measures.map((measure) => fact.labels[measure] || measure)]) {
      const heading = make("th", word, word === "sequence" ? "" : "n");
      heading.scope = "col";
      head.append(heading);
    }
    if (curved.length) {
      const heading = make("th", "over its frames: ");
      heading.scope = "col";
      curved.forEach((measure, number) =>
        heading.append(make("span", `${fact.labels[measure] || measure} `, ["a-key", "b-key"][number])));
      head.append(heading);
    }
    if (objects) head.append(make("th", "objects"));
    const body = table.createTBody();
    const score = (name) => fact.per_sequence[name][fact.headline] ?? Infinity;
    for (const name of names.sort((one, two) => score(one) - score(two))) {
      const row = body.insertRow();
      row.append(make("td", name));
      for (const measure of measures) row.append(make("td", percent(fact.per_sequence[name][measure]), "n"));
      if (curved.length) {
        const cell = row.insertCell();
        const series = curved.map((measure) => fact.curves[name]?.[measure]).filter(Boolean).map(numbered);
        if (series.length) cell.append(chart(series, `${name}: scores over its frames`));
      }
      if (objects) {
        const own = Object.entries(fact.per_object).filter(([key]) => key.startsWith(`${name}/`));
        const words = own.map(([key, value]) => `${key.slice(name.length + 1)}: ${percent(value)}`);
        row.append(make("td", words.join(", "), "remark"));
      }
    }
    return table;
  };

  const describe = (fact) => {
    const parts = [];
    const list = make("dl");
    for (const [key, value] of fact.facts) list.append(make("dt", key), make("dd", value));
    parts.push(list);
    const history = fact.history.filter((point) => typeof point[1] === "number");
    if (history.length > 1) {
      const values = history.map((point) => point[1]);
      const [least, most] = [Math.min(...values), Math.max(...values)];
      const steps = [history[0][0], history[history.length - 1][0]].map((step) => step.toLocaleString("en"));
      const words = `steps ${steps.join(" to ")}, ${percent(least)} to ${percent(most)} percent`;
      parts.push(make("h3", `${fact.labels[fact.headline] || fact.headline} over training`));
      parts.push(chart([history], words, { width: 420, height: 80, least, most }), make("p", words, "soft"));
    }
    if (Object.keys(fact.per_sequence).length) {
      parts.push(make("h3", "sequences, worst first"), sequenceTable(fact));
    }
    for (const picture of fact.pictures) {
      const figure = make("figure");
      const image = make("img");
      image.src = picture.data;
      image.alt = picture.words;
      figure.append(image, make("figcaption", picture.words));
      parts.push(figure);
    }
    if (fact.more) parts.push(make("p", fact.more, "soft"));
    return parts;
  };

  const toggle = (button) => {
    const row = button.closest("tr");
    const details = row.nextElementSibling;
    const cell = details.cells[0];
    if (!cell.hasChildNodes()) cell.append(...describe(facts[button.dataset.fact]));
    const open = details.hidden;
    details.hidden = !open;
    button.setAttribute("aria-expanded", String(open));
  };

  // Filters. A group without a row left goes, too; details are shown only below a row that is.
  const form = document.querySelector("form");
  const said = document.getElementById("said");
  const filter = () => {
    const benchmark = form.elements.benchmark.value;
    const preset = form.elements.preset.value;
    const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kinds = new Set(all("input[name=kind]:checked", form).map((box) => box.value));
    let shown = 0;
    for (const group of all("section.group")) {
      const here =
        (!benchmark || group.dataset.benchmark === benchmark) && (!preset || group.dataset.preset === preset);
      let left = 0;
      for (const row of all("tr.entry", group)) {
        const text = row.textContent.toLowerCase();
        const wanted = here && kinds.has(row.dataset.kind) && words.every((word) => text.includes(word));
        row.hidden = !wanted;
        const details = row.nextElementSibling;
        const opener = row.querySelector(".open");
        if (details?.classList.contains("details")) {
          details.hidden = !wanted || opener.getAttribute("aria-expanded") !== "true";
        }
        left += wanted;
      }
      group.hidden = left === 0;
      shown += left;
    }
    said.textContent = `${shown.toLocaleString("en")} ${shown === 1 ? "row" : "rows"} shown`;
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.classList.contains("open")) toggle(button);
    else if (button.classList.contains("theme")) {
      const preferred = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
      root.dataset.theme = (root.dataset.theme || preferred) === "dark" ? "light" : "dark";
    } else if (button.closest("th")) sortBy(button.closest("th"));
  });
  for (const name of ["input", "change"]) form.addEventListener(name, filter); // not every way to choose says both
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
})();
