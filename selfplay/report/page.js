"use strict";
const $ = (selector, within = document) => within.querySelector(selector);

async function unpack(element) {
  const bytes = Uint8Array.from(atob(element.textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

// Everything from a run is set as text: it was written by a model or a stranger.
function make(tag, props = {}, ...children) {
  const element = Object.assign(document.createElement(tag), props);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function diff(text) {
  const kinds = { "+": "add", "-": "del", "@": "hunk" };
  const kind = (line) => (/^(\+\+\+|---) /.test(line) ? "hunk" : kinds[line[0]] || "");
  const lines = text.replace(/\n$/, "").split("\n");
  return make("pre", {}, ...lines.map((line) =>
    make("span", { textContent: line, className: kind(line) })));
}

function folded(title, open, ...children) {
  return make("details", { open }, make("summary", { textContent: title }), ...children);
}

const percent = (rate) => (rate === null ? "–" : `${(100 * rate).toFixed(0)} %`);
const key = (line) => `${line.run}:${line.id}`.replaceAll(" ", "_");
const texts = new Map();

async function textsOf(line) {
  const wanted = key(line);
  if (!texts.has(wanted)) {
    const piece = [...document.querySelectorAll(".piece")]
      .find((p) => p.dataset.ids.split(" ").includes(wanted));
    if (!piece) return null;
    for (const [id, value] of Object.entries(await unpack(piece))) texts.set(id, value);
  }
  return texts.get(wanted);
}

function episode(e, open = false) {
  const verdict = e.reason || e.ending || e.status;
  const title = `${e.id} · ${verdict} · reward ${e.reward} · weights ${e.version}`;
  const body = e.turns.length
    ? [folded("task", false, make("pre", { textContent: e.user || "" })),
       ...e.turns.map((t, i) => folded(`turn ${i + 1}: ${t.tool || "no call"}`, true,
         t.thought && make("p", { textContent: t.thought }),
         t.arguments && make("pre", { textContent: Object.values(t.arguments).join("\n") }),
         t.observation && make("pre", { textContent: t.observation })))]
    : [make("pre", { textContent: e.answer })];
  if (e.error) body.push(make("p", { textContent: e.error, className: "no" }));
  const whole = folded(title, open, ...body);
  $("summary", whole).className = e.reward > 0 || e.reason === "valid" ? "yes" : "no";
  return whole;
}

function ancestry(bug, index) {
  const of = (id) => index.bugs.find((b) => b.run === bug.run && b.id === id);
  const chain = [];
  for (let at = bug; at; at = at.parent && of(at.parent)) chain.unshift(at);
  const children = index.bugs.filter((b) => b.run === bug.run && b.parent === bug.id);
  if (chain.length === 1 && !children.length) return null;
  const link = (b) => make("a", { textContent: b.id, onclick: () => showBug(b, index) });
  const line = make("p", { className: "ancestry" }, "grown from: ");
  chain.forEach((b, i) => line.append(i ? " → " : "", b === bug ? b.id : link(b)));
  if (children.length) line.append(" → ");
  children.forEach((b, i) => line.append(i ? ", " : "", link(b)));
  return line;
}

function open(title, ...children) {
  const dialog = $("#detail");
  $("div", dialog).replaceChildren(make("h2", { textContent: title }), ...children);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

const MISSING = "Its texts are left out of this file.";

async function showBug(bug, index) {
  const t = await textsOf(bug);
  const about = make("p", { textContent: `${bug.repo} · ${bug.file} · ${bug.function} · ` +
    `${bug.strategy} · step ${bug.step} · resolved ${percent(bug.rate)} of ${bug.attempts}` });
  const rest = t ? [diff(t.patch),
    folded(`tests that fail (${bug.tests})`, false, make("pre", { textContent: t.fail_to_pass.join("\n") })),
    folded("what hides it (weakening patch)", false, diff(t.weakening)),
    folded("test script", false, make("pre", { textContent: t.script })),
    make("h2", { textContent: `attempts (${t.attempts.length})` }),
    ...t.attempts.map((e) => episode(e))] : [make("p", { textContent: MISSING })];
  open(bug.id, about, ...[ancestry(bug, index), ...rest].filter(Boolean));
}

async function showInjection(line, index) {
  const t = await textsOf(line);
  const bug = line.bug && index.bugs.find((b) => b.run === line.run && b.id === line.bug);
  open(line.id, t ? episode(t, true) : make("p", { textContent: MISSING }),
    bug ? make("a", { textContent: `its bug: ${bug.id}`, onclick: () => showBug(bug, index) }) : "");
}

function table(section, lines, columns, show) {
  const [head, body, more, input] = ["thead", "tbody", ".more", "input"].map((s) => $(s, section));
  let shown = 0, found = lines;
  head.replaceChildren(make("tr", {}, ...columns.map(([name]) => make("th", { textContent: name }))));
  const grow = () => {
    for (const line of found.slice(shown, (shown += 100))) {
      const row = make("tr", { tabIndex: 0, onclick: () => show(line) },
        ...columns.map(([, value]) => make("td", { textContent: value(line) ?? "" })));
      row.onkeydown = (event) => event.key === "Enter" && show(line);
      body.append(row);
    }
    more.hidden = shown >= found.length;
    $(".count", section).textContent = `${found.length} of ${lines.length}`;
  };
  input.oninput = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (line) => columns.map(([, value]) => value(line)).join(" ").toLowerCase();
    found = words.length ? lines.filter((l) => words.every((w) => text(l).includes(w))) : lines;
    shown = 0;
    body.replaceChildren();
    grow();
  };
  more.onclick = grow;
  grow();
}

const dark = matchMedia("(prefers-color-scheme: dark)");

async function draw(holder, index) {
  const ink = dark.matches ? "#9aa6b8" : "#5d6878", grid = dark.matches ? "#303946" : "#dde2e9";
  const config = { title: { color: ink }, legend: { labelColor: ink, titleColor: ink, orient: "bottom" },
    axis: { labelColor: ink, titleColor: ink, gridColor: grid, domainColor: grid, tickColor: grid } };
  const datasets = { rows: index.rows, bugs: index.bugs, injections: index.injections };
  const specs = index[holder.dataset.charts], figures = specs.map(() => make("figure", {}, make("div")));
  holder.replaceChildren(...figures);  // all of them first: a chart is as wide as its column
  for (const [i, spec] of specs.entries()) {
    await vegaEmbed(figures[i].firstChild, { ...spec, datasets, config: { ...spec.config, ...config } },
      { actions: false, renderer: "svg" });
  }
}

async function main() {
  const index = await unpack($("#index"));
  const many = index.runs.length > 1;
  const run = many ? [["run", (l) => l.run]] : [];
  table($("#bugs"), index.bugs, [...run, ["bug", (b) => b.id], ["repository", (b) => b.repo],
    ["file", (b) => b.file], ["function", (b) => b.function], ["strategy", (b) => b.strategy],
    ["order", (b) => (b.parent ? "higher" : "first")], ["step", (b) => b.step],
    ["resolved", (b) => percent(b.rate)], ["attempts", (b) => b.attempts]], (b) => showBug(b, index));
  table($("#injections"), index.injections, [...run, ["episode", (l) => l.id], ["repository", (l) => l.repo],
    ["function", (l) => l.function], ["strategy", (l) => l.strategy], ["verdict", (l) => l.reason],
    ["reward", (l) => l.reward]], (l) => showInjection(l, index));
  const drawn = new Set();
  const choose = (name) => {
    for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== name;
    for (const tab of document.querySelectorAll("nav button"))
      tab.setAttribute("aria-selected", tab.dataset.tab === name);
    const holder = $(`#${name} [data-charts]`);
    if (holder && !drawn.has(name)) draw(holder, index), drawn.add(name);
  };
  $("nav").onclick = (event) => event.target.dataset.tab && choose(event.target.dataset.tab);
  dark.onchange = () => { drawn.clear(); choose($("nav [aria-selected=true]").dataset.tab); };
  choose("overview");
  document.body.dataset.ready = "true";
}

main();
