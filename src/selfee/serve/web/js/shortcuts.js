// Keys that do something when nobody is typing. They can be turned off, except for Escape.

export function bindShortcuts(isOn, actions) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const action = actions[event.key];
    if (!action || document.querySelector("dialog[open]")) return;
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (event.key !== "Escape" && (typing || !isOn())) return;
    event.preventDefault();
    action();
  });
}
