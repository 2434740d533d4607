// What the reader sets: kept in this browser, sent with each question.

const KEY = "selfee.settings";

export const DEFAULTS = {
  temperature: null, // null = as the server has it for this model
  topP: null,
  maxTokens: 1024,
  feedbackTokens: 256,
  minRevisions: 0,
  maxRevisions: 3,
  seed: "",
  system: "",
  keep: true,
  shortcuts: true,
  theme: "auto",
};

export function loadSettings() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY)) ?? {};
    const known = Object.entries(kept).filter(([name]) => name in DEFAULTS);
    return { ...DEFAULTS, ...Object.fromEntries(known) };
  } catch {
    return { ...DEFAULTS };
  }
}

export function saveSettings(settings) {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // A browser that keeps nothing: they hold for this visit.
  }
}

/** The settings as fields of a request. */
export function requestFields(settings) {
  const seed = String(settings.seed).trim();
  return {
    ...(settings.temperature === null ? {} : { temperature: settings.temperature }),
    ...(settings.topP === null ? {} : { top_p: settings.topP }),
    ...(/^\d{1,18}$/.test(seed) ? { seed: Number(seed) } : {}),
    max_answer_tokens: settings.maxTokens,
    max_revision_tokens: settings.maxTokens,
    max_feedback_tokens: settings.feedbackTokens,
    min_revisions: settings.minRevisions,
    max_revisions: settings.maxRevisions,
  };
}

/** In a few words what is set. */
export function summary(settings) {
  const { minRevisions: least, maxRevisions: most } = settings;
  const rounds =
    most === 0 ? "No revisions" : least === 0 ? `Up to ${most} revisions` : least === most ? `${most} revisions` : `${least}–${most} revisions`;
  const parts = [rounds.replace(/^(Up to 1|1) revisions$/, "$1 revision"), `${settings.maxTokens} tokens`];
  if (settings.temperature !== null) parts.splice(1, 0, `temperature ${settings.temperature}`);
  return parts.join(" · ");
}

const SLIDERS = [
  ["minRevisions", "min-revisions"],
  ["maxRevisions", "max-revisions"],
  ["temperature", "temperature"],
  ["topP", "top-p"],
  ["maxTokens", "max-tokens"],
  ["feedbackTokens", "feedback-tokens"],
];
const FALLBACK = { temperature: 0.7, topP: 0.95 };

/** Bind the dialog's fields to the settings; `changed` hears of every change. */
export function bindSettings(dialog, settings, changed) {
  const field = (id) => dialog.querySelector(`#${id}`);
  const show = () => {
    for (const [name, id] of SLIDERS) {
      const value = settings[name];
      field(id).value = value ?? FALLBACK[name];
      field(`${id}-value`).textContent = value === null ? "model’s own" : value.toLocaleString("en");
    }
    field("min-revisions-value").textContent = settings.minRevisions || "model decides";
    field("seed").value = settings.seed;
    field("system").value = settings.system;
    field("keep").checked = settings.keep;
    field("shortcuts").checked = settings.shortcuts;
  };
  const store = () => {
    saveSettings(settings);
    show();
    changed(settings);
  };
  for (const [name, id] of SLIDERS) {
    field(id).addEventListener("input", (event) => {
      settings[name] = Number(event.target.value);
      // The two bounds push each other along.
      if (name === "minRevisions") settings.maxRevisions = Math.max(settings.maxRevisions, settings.minRevisions);
      if (name === "maxRevisions") settings.minRevisions = Math.min(settings.minRevisions, settings.maxRevisions);
      store();
    });
  }
  for (const id of ["seed", "system"]) {
    field(id).addEventListener("change", (event) => {
      settings[id] = id === "seed" ? event.target.value.replace(/\D/g, "").slice(0, 10) : event.target.value;
      store();
    });
  }
  for (const id of ["keep", "shortcuts"]) {
    field(id).addEventListener("change", (event) => {
      settings[id] = event.target.checked;
      store();
    });
  }
  field("reset").addEventListener("click", () => {
    const { keep, shortcuts, theme } = settings;
    Object.assign(settings, DEFAULTS, { keep, shortcuts, theme });
    store();
  });
  show();
}

/** Light, dark, or as the system has it. */
export function applyTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}
