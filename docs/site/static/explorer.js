/* The explorer's page: fills the controls from the stored sets, draws the chosen curve, lists the questions that moved
   most at a layer, and shows words and attention on one question's frames. It computes no statistics: curves, intervals
   and tests come with the data. */
"use strict";
(() => {
  const { data } = explorer, index = data.index, chosen = new URLSearchParams(location.hash.slice(1));
  const at = (id) => document.getElementById(id);
  const MOST = 5;

  /* Loads explorer/NAME.js once, by a script tag: a page opened from a disk may not fetch. */
  const pending = {};
  const load = (name) => pending[name] ??= new Promise((resolve, reject) => {
    const script = Object.assign(document.createElement("script"), { src: `explorer/${name}.js` });
    script.onload = () => resolve(data[name]);
    script.onerror = () => reject(new Error(`explorer/${name}.js cannot be loaded`));
    document.head.append(script);
  });

  const element = (tag, given = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(given)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  const unpack = (text, Kind) => new Kind(Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)).buffer);
  const number = (value, digits) => value.toFixed(digits).replace(/^-(?=0\.?0*$)/, "").replace("-", "−");
  const percent = (share) => `${number(100 * share, 2)} %`;

  /* Fills a select with [value, words] pairs and returns the value chosen: the one asked for if it is there. */
  function choice(id, pairs) {
    const select = at(id), wanted = chosen.get(id);
    select.replaceChildren(...pairs.map(([value, words]) => element("option", { value }, words)));
    select.value = pairs.some(([value]) => value === wanted) ? wanted : pairs[0]?.[0] ?? "";
    return select.value;
  }
  function slider(id, top) {
    at(id).max = top;
    at(id).value = Math.min(Number(chosen.get(id)) || Math.ceil(top / 2), top);
    return Number(at(id).value);
  }
  const known = (names, found) => Object.keys(names).filter((name) => found.has(name));

  /* What is chosen, with everything that is there to choose from. Every edge set has windows of its own. */
  async function choices() {
    const set = choice("set", index.sets.map((name) => [name, name.replace("/", " on ")]));
    const windows = await load(`${set}/curves`), all = Object.entries(windows);
    const edges = known(index.edges, new Set(all.flatMap(([, one]) => Object.keys(one.edges))));
    const edge = choice("edge", edges.map((name) => [name, index.edges[name].words]));
    const window = choice("window", all.filter(([, one]) => edge in one.edges).map(([name, one]) => [name, one.words]));
    const tasks = windows[window].edges[edge];
    const task = choice("task", known(index.tasks, new Set(Object.keys(tasks))).map((name) => [name, index.tasks[name]]));
    const metric = choice("metric", Object.entries(index.metrics));
    const layer = slider("layer", windows[window].first.length);
    return { set, edge, window, task, metric, layer, spans: windows[window], curve: tasks[task] };
  }

  let turn = 0, view = null, now = null;  // a slower, older request must not overwrite a newer one
  async function redraw() {
    const mine = at("explorer").dataset.asked = ++turn, next = await choices();
    if (mine !== turn) return;
    now = next;
    history.replaceState(null, "", `#${chosen}`);
    sayNumbers();
    await Promise.all([drawCurve(), listMoved(), listExamples()]);
    at("explorer").dataset.drawn = turn;
  }

  const span = (i) => now.spans.first[i] === now.spans.last[i] ? `${now.spans.first[i]}` : `${now.spans.first[i]}–${now.spans.last[i]}`;
  function sayNumbers() {
    const { curve, metric } = now, { mean, low, high, p } = curve[metric];
    at("layer-now").textContent = `${now.layer} (cut: ${span(now.layer - 1)})`;
    at("count").textContent = `n = ${curve.n} questions from ${curve.videos} videos`;
    const least = mean.indexOf(Math.min(...mean));
    at("curve").setAttribute("aria-label", `Change of ${index.metrics[metric]} by layer; lowest at layer ${least + 1}: ` +
      `${number(mean[least], 2)} (95 % interval ${number(low[least], 2)} to ${number(high[least], 2)}).`);
    const row = (kind, cells) => element("tr", {}, ...cells.map((cell) => element(kind, {}, cell)));
    const lines = mean.map((value, i) => row("td", [`${i + 1}`, span(i), ...[value, low[i], high[i]].map((x) => number(x, 2)),
      p[i] === null ? "" : number(p[i], 4)]));
    at("numbers").replaceChildren(row("th", ["layer", "cut", "mean", "low", "high", "p"]), ...lines);
  }

  const hue = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--pst-color-${name}`).trim();
  async function drawCurve() {
    const { curve, metric, spans, layer } = now, { mean, low, high, p } = curve[metric], look = index.edges[now.edge];
    const x = mean.map((_, i) => i + 1), ink = hue("text-base"), line = { line_color: look.colour, line_width: 2.5 };
    const room = 0.08 * ((Math.max(0, ...high) - Math.min(0, ...low)) || 1);
    const y_range = [Math.min(0, ...low) - room, Math.max(0, ...high) + 2 * room];
    const plot = Bokeh.Plotting.figure({
      height: 340, sizing_mode: "stretch_width", toolbar_location: null, tools: "", y_range, x_range: [0.4, x.length + 0.6],
      x_axis_label: "layer", y_axis_label: `change of ${index.metrics[metric]}`,
      background_fill_color: hue("background"), border_fill_color: hue("background"), outline_line_color: hue("border"),
    });
    for (const axis of [plot.xaxis, plot.yaxis]) {
      Object.assign(axis, { axis_label_text_color: ink, major_label_text_color: ink, axis_line_color: ink,
        major_tick_line_color: ink, minor_tick_line_color: null, axis_label_text_font_style: "normal" });
    }
    plot.grid.grid_line_color = hue("border");
    plot.grid.grid_line_alpha = 0.5;
    plot.line([0.4, x.length + 0.6], [0, 0], { line_color: ink, line_width: 1 });
    plot.line([layer, layer], y_range, { line_color: ink, line_width: 1, line_dash: "dotted" });
    plot.varea(x, low, high, { fill_color: look.colour, fill_alpha: 0.2, name: "band" });
    plot.line(x, mean, { ...line, line_dash: look.dash, name: "mean" });
    const width = spans.last.map((last, i) => last - spans.first[i]), full = Math.max(...width);
    const cutShort = (i) => /center/.test(now.window) && width[i] < full;
    plot.scatter(x, mean, { ...line, line_width: 1.5, size: 8, fill_color: x.map((_, i) => cutShort(i) ? hue("background") : look.colour) });
    const hit = x.filter((_, i) => p[i] !== null && p[i] < 0.05), top = y_range[1] - 0.6 * room;
    plot.segment(hit.map((i) => i - 0.4), hit.map(() => top), hit.map((i) => i + 0.4), hit.map(() => top), line);
    plot.on_event("tap", (event) => event.x !== undefined && pick("layer", Math.round(event.x)));
    const mine = turn, drawn = await Bokeh.Plotting.show(plot, element("div"));
    if (mine !== turn) return drawn.remove();
    view?.remove();
    view = drawn;
    Bokeh.documents.splice(0, Bokeh.documents.length - 1);
    at("curve").replaceChildren(drawn.el);
  }

  /* A strip of frames as tiles; `inside(i)` gives what lies on frame i. */
  function tiles(source, count, inside = () => []) {
    const tile = (i) => {
      const image = element("img", { src: source, alt: `frame ${i + 1}`, style: `width:${100 * count}%;left:${-100 * i}%` });
      return element("figure", {}, element("div", { class: "frame" }, image, ...inside(i)), element("figcaption", {}, `${i + 1}`));
    };
    return element("div", { class: "tiles" }, ...Array.from({ length: count }, (_, i) => tile(i)));
  }

  async function listMoved() {
    const { set, window, edge, task, metric, layer } = now, mine = turn;
    const [asked, cuts] = await Promise.all([load(`${set}/questions`), load(`${set}/${window}`)]);
    if (mine !== turn) return;
    const cut = cuts[edge], start = (layer - 1) * cut.asked.length;
    const p = unpack(cut.p, Uint16Array), margins = unpack(cut.margin, Int16Array);
    const moved = cut.asked.map((place, i) => {
      const question = asked[place], after = p[start + i] / 1e4, margin = margins[start + i] / 100;
      const change = metric === "margin_change" ? margin - question.margin : 100 * (after - question.p) / question.p;
      return { question, after, margin, change, said: cut.said[start + i] };
    }).filter(({ question }) => task === index.mean || question.task === task);
    moved.sort((a, b) => Math.abs(b.change) - Math.abs(a.change));
    at("moved").replaceChildren(...moved.slice(0, MOST).map(card));
  }
  function card({ question, after, margin, change, said }) {
    const options = question.options.map((text, i) => {
      const letter = String.fromCharCode(65 + i), right = letter === question.answer;
      const words = `${letter}  ${text}: ${percent(question.p_options[i])} before${right ? `, ${percent(after)} after` : ""}`;
      return element("li", right ? { class: "right" } : {}, words);
    });
    const unit = now.metric === "margin_change" ? "logits" : "%";
    const answer = said === question.answer ? `still ${said}` : said === "?" ? "no letter any more" : `now ${said}`;
    const facts = `${index.tasks[question.task]}, ${question.sample_id}. Change: ${number(change, 1)} ${unit}; margin ` +
      `${number(question.margin, 2)} before, ${number(margin, 2)} after; the answer is ${answer}.`;
    const frames = question.frames ? tiles(`explorer/frames/${question.frames}.webp`, question.n_frames)
      : element("p", { class: "note" }, "The frames of this clip were not at hand when the site was made.");
    return element("article", {}, element("h3", {}, question.question), frames, element("ul", {}, ...options), element("p", { class: "note" }, facts));
  }

  async function listExamples() {
    const mine = turn, all = await load(`${now.set}/examples`);
    if (mine !== turn) return;
    at("inside").hidden = !all.length;
    const name = choice("example", all.map((one) => [one.name, one.question]));
    if (!name) return at("look").replaceChildren();
    const example = await load(name);
    if (mine === turn) drawInside(name, example);
  }
  function drawInside(name, example) {
    const [layers, frames, high, wide] = example.shape, cells = high * wide;
    const words = Object.keys(example.looks).map((word) => [word, `where “${word}” looks`]);
    const look = choice("look", [["", "words on the frames"], ...words]), layer = slider("depth", layers);
    at("depth-now").textContent = `${layer} of ${layers}`;
    const grid = (cell) => (t) => [element("div", { class: "grid", style: `grid-template-columns:repeat(${wide},1fr)` },
      ...Array.from({ length: cells }, (_, i) => cell(((layer - 1) * frames + t) * cells + i)))];
    if (!look) {
      const places = unpack(example.words, Uint16Array);
      const cell = (i) => {
        const kind = example.kinds[places[i]], style = kind ? `background:${example.colours[kind]}` : "";
        const word = example.vocabulary[places[i]].trim() || "·";
        return element("span", {}, element("span", { class: kind ? "keyword" : "word", style }, word));
      };
      const legend = Object.entries(example.colours).map(([kind, colour]) => element("span", { class: "keyword", style: `background:${colour}` }, `${kind} keyword`));
      return at("frames").replaceChildren(element("p", { class: "legend" }, ...legend), tiles(`explorer/${name}.webp`, frames, grid(cell)));
    }
    const { top, maps } = example.looks[look];
    at("frames").replaceChildren(...Object.entries(maps).flatMap(([condition, text]) => {
      const steps = unpack(text, Uint8Array);
      const drawn = tiles(`explorer/${name}.webp`, frames, grid((i) => element("span", { style: `background:rgba(255,140,0,${Math.sqrt(steps[i] / 255).toFixed(3)})` })));
      drawn.classList.add("grey");
      drawn.querySelectorAll("figcaption").forEach((caption, t) => {
        const from = ((layer - 1) * frames + t) * cells, sum = steps.subarray(from, from + cells).reduce((a, b) => a + b, 0);
        caption.textContent += `: ${number((100 * top * sum) / 255, 1)} %`;
      });
      return [element("p", { class: "legend" }, `With ${condition}: attention of “${look}” to each frame, mean over heads`), drawn];
    }));
  }

  function pick(id, value) {
    chosen.set(id, Math.min(Math.max(value, 1), at(id).max || value));
    redraw();
  }
  for (const id of ["set", "task", "edge", "window", "metric", "example", "look"]) {
    at(id).addEventListener("change", () => { chosen.set(id, at(id).value); redraw(); });
  }
  for (const id of ["layer", "depth"]) at(id).addEventListener("input", () => pick(id, Number(at(id).value)));
  document.querySelectorAll("#controls, #inside form").forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));
  new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  redraw();
})();
