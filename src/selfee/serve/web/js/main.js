// The page: brings conversation, models, settings and history together.

import { apiKey, ApiError, listModels } from "./api.js";
import { isLive } from "./chain.js";
import { Conversation } from "./conversation.js";
import { announce, button, fill, h, icon } from "./dom.js";
import { asJson, asMarkdown, download, fileName } from "./export.js";
import { History } from "./history.js";
import { applyTheme, bindSettings, loadSettings, saveSettings, summary } from "./settings.js";
import { bindShortcuts } from "./shortcuts.js";

const $ = (id) => document.getElementById(id);
const settings = loadSettings();
const history = new History();
const page = { models: [], conversation: null, comparing: false };
const LAST = "selfee.conversation";

async function boot() {
  applyTheme(settings.theme);
  bindSettings($("settings"), settings, () => ($("summary").textContent = summary(settings)));
  $("summary").textContent = summary(settings);
  bindControls();
  bindShortcuts(() => settings.shortcuts, shortcutActions());
  await history.open();
  await Promise.all([loadModels(), reopen()]);
  drawHistory();
}

// -- models ----------------------------------------------------------------------------------------------------------

async function loadModels() {
  try {
    page.models = await listModels();
    banner(null);
  } catch (error) {
    if (error.status === 401) {
      if (await askForKey()) return loadModels();
      banner("This server wants a key.", button("Enter a key", loadModels));
      return;
    }
    banner(error.message, button("Try again", loadModels));
    return;
  }
  const wanted = new URLSearchParams(location.search).get("model");
  const names = page.models.map((model) => model.id);
  for (const [at, select] of [$("model-1"), $("model-2")].entries()) {
    const before = select.value;
    fill(select, ...names.map((name) => h("option", { value: name, text: name })));
    const first = at === 0 && names.includes(wanted) ? wanted : names[Math.min(at, names.length - 1)];
    select.value = names.includes(before) ? before : (first ?? "");
  }
  $("compare").disabled = names.length === 0;
}

const chosenModels = () => (page.comparing ? [$("model-1").value, $("model-2").value] : [$("model-1").value]);

function setComparing(on) {
  page.comparing = on;
  $("compare").setAttribute("aria-pressed", String(on));
  $("model-2-field").hidden = !on;
  document.body.classList.toggle("comparing", on);
}

// -- the conversation ------------------------------------------------------------------------------------------------

function show(conversation) {
  page.conversation?.dispose();
  page.conversation = conversation;
  fill($("turns"), conversation.element);
  drawState();
}

function newConversation() {
  show(new Conversation(hooks()));
  sessionStorage.removeItem(LAST);
  $("ask").focus();
  drawHistory();
}

function hooks() {
  return {
    settings,
    models: chosenModels,
    onChange: drawState,
    onConnection,
    onSave: keep,
    compare: $("comparison"),
    scroller: $("conversation"),
  };
}

/** After a reload: the conversation that was open, and its chains that are still being made. */
async function reopen() {
  const id = sessionStorage.getItem(LAST);
  const data = id ? await history.load(id).catch(() => null) : null;
  show(new Conversation(hooks(), data));
}

async function open(id) {
  const data = await history.load(id);
  if (!data) return drawHistory();
  sessionStorage.setItem(LAST, id);
  show(new Conversation(hooks(), data));
  closeSidebar();
  drawHistory();
}

async function keep(conversation) {
  if (!settings.keep) return;
  sessionStorage.setItem(LAST, conversation.data.id);
  try {
    const gone = await history.save(conversation.data);
    if (gone) announce(`${gone} of the oldest conversations had to go.`);
  } catch {
    banner("This browser has no room left for conversations; this one is not kept.");
  }
  drawHistory();
}

function send() {
  const text = $("ask").value.trim();
  if (!text) return $("ask").focus();
  if (page.conversation.isLive) return announce("An answer is still being written.");
  if (!$("model-1").value) return loadModels();
  $("ask").value = "";
  resize();
  banner(null);
  page.conversation.ask(text);
}

function drawState() {
  const { conversation } = page;
  if (!conversation) return;
  const live = conversation.isLive;
  document.body.classList.toggle("empty", conversation.data.turns.length === 0);
  $("welcome").hidden = conversation.data.turns.length > 0;
  $("title").hidden = conversation.data.turns.length === 0;
  $("title").textContent = conversation.data.title;
  $("send").hidden = live;
  $("stop").hidden = !live;
  $("export").disabled = conversation.data.turns.length === 0;
  document.title = conversation.data.title ? `${conversation.data.title} – selfee` : "selfee";
}

// -- history ---------------------------------------------------------------------------------------------------------

async function drawHistory() {
  const rows = await history.list().catch(() => []);
  const current = page.conversation?.data.id;
  fill(
    $("history"),
    ...rows.map(({ id, title, updated }) =>
      h(
        "li",
        { class: id === current ? "current" : null },
        button(h("span", { dir: "auto", text: title }), () => open(id), {
          class: "open", "aria-current": id === current ? "true" : null, title: new Date(updated).toLocaleString(),
        }),
        button(icon("bin"), () => forget(id), { class: "iconic", "aria-label": `Delete “${title}”` }),
      ),
    ),
  );
  $("no-history").hidden = rows.length > 0;
  $("clear").hidden = rows.length === 0;
  $("not-kept").hidden = history.isKept && settings.keep;
}

async function forget(id) {
  if (page.conversation?.data.id === id) page.conversation.forget();
  await history.remove(id);
  announce("Deleted.");
  if (page.conversation?.data.id === id) newConversation();
  else await drawHistory();
}

async function clearHistory() {
  if (!confirm("Delete all conversations kept in this browser?")) return;
  page.conversation?.forget();
  await history.clear();
  newConversation();
}

// -- connection, key, banner -----------------------------------------------------------------------------------------

function banner(text, ...actions) {
  const bar = $("banner");
  bar.hidden = !text;
  delete bar.dataset.state;
  fill(bar, ...(text ? [h("p", { text }), ...actions] : []));
}

function onConnection(session, state, detail) {
  const bar = $("banner");
  // That the server was restarted stays to be read; that a connection is back shows by itself.
  if (state === "ok") return bar.dataset.state === "restarted" ? undefined : banner(null);
  if (state === "key") return askForKey();
  const now = button("Try now", () => session.retryNow());
  const leave = button("Give up", () => page.conversation.giveUp());
  if (state === "lost") banner(`The connection is lost. Trying again (${detail})…`, now, leave);
  if (state === "busy") banner(`The server is busy. Trying again in ${detail} s…`, now, leave);
  if (state === "restarted") {
    const how = detail ? "the chain goes on after its last finished section" : "your question is asked again";
    banner(`The server was restarted: ${how}.`, button("Close", () => banner(null)));
    announce("The server was restarted.");
  }
  bar.dataset.state = state;
}

let asking = null;

/** Ask for a key; resolves to whether one was given. It lives in this tab only. */
function askForKey() {
  asking ??= new Promise((resolve) => {
    const dialog = $("key");
    $("key-wrong").hidden = !apiKey.get();
    apiKey.set("");
    $("key-text").value = "";
    dialog.showModal();
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "use" && $("key-text").value.trim();
      apiKey.set(given || "");
      $("key-text").value = "";
      dialog.returnValue = "";
      asking = null;
      resolve(Boolean(given));
    }, { once: true });
  });
  return asking;
}

// -- controls --------------------------------------------------------------------------------------------------------

function resize() {
  const field = $("ask");
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight, window.innerHeight * 0.4)}px`;
}

function closeSidebar() {
  document.body.classList.remove("sidebar-open");
  $("menu").setAttribute("aria-expanded", "false");
}

function toggleSidebar() {
  const isOpen = document.body.classList.toggle("sidebar-open");
  $("menu").setAttribute("aria-expanded", String(isOpen));
  if (isOpen) $("new").focus();
}

const THEMES = { auto: "dark", dark: "light", light: "auto" };

function nextTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  settings.theme = settings.theme === "auto" ? (dark ? "light" : "dark") : THEMES[settings.theme];
  saveSettings(settings);
  applyTheme(settings.theme);
  announce(`Colours: ${settings.theme === "auto" ? "as your system has them" : settings.theme}.`);
}

function exportAs(kind) {
  const { data } = page.conversation;
  if (kind === "json") download(fileName(data.title, "json"), "application/json", asJson(data));
  else download(fileName(data.title, "md"), "text/markdown", asMarkdown(data));
}

function bindControls() {
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  $("ask").addEventListener("input", resize);
  $("ask").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  });
  const clicks = {
    stop: () => page.conversation.stop(),
    new: newConversation,
    menu: toggleSidebar,
    veil: closeSidebar,
    clear: clearHistory,
    theme: nextTheme,
    compare: () => setComparing(!page.comparing),
    "settings-open": () => $("settings").showModal(),
    summary: () => $("settings").showModal(),
    "help-open": () => $("help").showModal(),
    "export-json": () => exportAs("json"),
    "export-md": () => exportAs("md"),
  };
  for (const [id, listener] of Object.entries(clicks)) $(id).addEventListener("click", listener);
  $("export").addEventListener("click", () => $("export-menu").showModal());
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
    });
  }
  for (const example of document.querySelectorAll("[data-example]")) {
    example.addEventListener("click", () => {
      $("ask").value = example.textContent;
      resize();
      send();
    });
  }
  window.addEventListener("beforeunload", () => page.conversation?.save(true));
}

function shortcutActions() {
  const view = () => page.conversation?.currentView;
  const act = (name) => () => view()?.element.querySelector(`[data-act="${name}"]:not(:disabled)`)?.click();
  return {
    "/": () => $("ask").focus(),
    "?": () => $("help").showModal(),
    n: newConversation,
    s: () => $("settings").showModal(),
    a: act("accept"),
    m: act("more"),
    f: act("feedback"),
    d: act("compare"),
    r: act("raw"),
    Escape: () => {
      if (document.body.classList.contains("sidebar-open")) closeSidebar();
      else if (page.conversation?.isLive) page.conversation.stop();
    },
  };
}

boot().catch((error) => {
  if (!(error instanceof ApiError)) console.error(error);
  banner(`The page could not start: ${error.message}`);
});
