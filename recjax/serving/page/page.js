// Every text from the catalogue is set as textContent, never as HTML.
"use strict";

const picked = [];  // {id, title}, oldest first
const titles = new Map();
const byId = (id) => document.getElementById(id);

let token = "";

async function call(path, body) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const options = body === undefined ? { headers } : {
    method: "POST",
    headers: { ...headers, "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  const response = await fetch(path, options);
  const content = await response.json();
  if (response.status === 401) byId("login").hidden = false;
  if (!response.ok) throw new Error(content.error || response.statusText);
  return content;
}

function guarded(action) {
  return async (...args) => {
    try {
      await action(...args);
      byId("error").textContent = "";
    } catch (error) {
      byId("error").textContent = error.message;
    }
  };
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function button(text, label, action) {
  const made = element("button", text);
  made.type = "button";
  made.setAttribute("aria-label", label);
  made.addEventListener("click", guarded(action));
  return made;
}

function row(item, actions, note) {
  titles.set(item.id, item.title);
  const line = document.createElement("li");
  const text = element("span", item.title, "title");
  line.append(text);
  if (note) line.append(element("small", note));
  const buttons = element("span", "", "buttons");
  buttons.append(...actions);
  line.append(buttons);
  return line;
}

const pick = (item) => button("pick", `pick ${item.title}`, async () => {
  picked.push(item);
  await update();
});
const nearest = (item) => button("similar", `similar to ${item.title}`, () => showSimilar(item));

function because(item) {
  if (!item.because) return "";
  const near = item.because.map((each) => titles.get(each.id) || each.id);
  return `because of ${near.join(" and ")}`;
}

let updates = 0;
async function update() {
  const mine = ++updates;
  byId("history").replaceChildren(...picked.map((item, index) => row(item, [
    button("remove", `remove ${item.title}`, async () => {
      picked.splice(index, 1);
      await update();
    }),
  ])));
  byId("hint").hidden = picked.length > 0;
  const history = picked.map((item) => item.id);
  const found = await call("/recommend", { history, k: 10, explain: true });
  if (mine !== updates) return;  // a later click is under way
  byId("source").textContent = found.source === "model"
    ? "From your history, newest item last."
    : "The most popular items, until you pick some.";
  byId("list").replaceChildren(...found.items.map(
    (item) => row(item, [pick(item), nearest(item)], because(item))));
}

async function showSimilar(item) {
  const path = `/items/${encodeURIComponent(item.id)}/neighbors?k=8`;
  const found = await call(path);
  byId("of").textContent = `Nearest to ${item.title}`;
  byId("similar").replaceChildren(...found.items.map(
    (near) => row(near, [pick(near)], `cosine ${near.score.toFixed(2)}`)));
}

let searches = 0;
async function search() {
  const mine = ++searches;
  const words = byId("query").value;
  const found = await call(`/items?k=12&q=${encodeURIComponent(words)}`);
  if (mine !== searches) return;  // a later search is under way
  byId("found").replaceChildren(...found.items.map(
    (item) => row(item, [pick(item), nearest(item)])));
}

async function start() {
  const about = await call("/model");
  const metrics = Object.entries(about.metrics)
    .map(([name, x]) => `${name} ${x.value.toFixed(4)}`).join(", ");
  const split = about.held_out ? "test" : "on its training events";
  byId("model").textContent =
    `${about.items.toLocaleString("en")} items, model ${about.model}` +
    (metrics ? `; ${split}: ${metrics}` : "");
  byId("query").addEventListener("input", guarded(search));
  byId("clear").addEventListener("click", guarded(async () => {
    picked.length = 0;
    await update();
  }));
  byId("login").addEventListener("submit", guarded(async (event) => {
    event.preventDefault();
    token = byId("token").value.trim();
    await update();
    byId("login").hidden = true;
  }));
  await search();
  await update();
}

guarded(start)();
