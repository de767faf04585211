/* What widgets cannot do in the served page: know its address, remember sessions in this browser, copy a link, tell
   that the kernel is gone. Widgets say what they want by data-* attributes; whatever was typed is written as text. */

(() => {
  "use strict";

  const KEPT = 30; // sessions that this browser remembers
  const STORE = "editlab.sessions";
  const LOST_SECONDS = 4; // of silence before a lost connection is told

  const read = () => {
    try { return JSON.parse(localStorage.getItem(STORE)) || []; } catch { return []; }
  };
  const write = (sessions) => {
    try { localStorage.setItem(STORE, JSON.stringify(sessions.slice(0, KEPT))); } catch { /* a browser that keeps nothing */ }
  };
  const link = (key, view = "", opens = "session") => {
    const url = new URL(location.href);
    url.search = new URLSearchParams({ [opens]: key, ...(view && { view }) });
    url.hash = "";
    return url.href;
  };

  /* The session that is shown: in the address, so that a reload comes back to it, and in the list once it is something.
     Another session than the one before is a page of its own to the browser's Back, which has it opened (`.el-back`). */
  let current = "";
  const remember = ({ session, name, edits, kind }) => {
    const here = link(session, new URL(location.href).searchParams.get("view") || "");
    if (here !== location.href) history[current && current !== session ? "pushState" : "replaceState"](null, "", here);
    current = session;
    const others = read().filter((known) => known.key !== session);
    if (Number(edits) || name) write([{ key: session, name, edits: Number(edits), kind, time: Date.now() }, ...others]);
  };
  const show = ({ view }) => {
    const session = new URL(location.href).searchParams.get("session");
    if (session) history.replaceState(null, "", link(session, view));
  };
  const put = (field, value) => {
    field.value = value;
    for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, { bubbles: true }));
  };
  addEventListener("popstate", () => {
    const field = document.querySelector(".el-back input"), key = new URL(location.href).searchParams.get("session");
    if (!field || !key || key === current) return;
    current = key;
    put(field, key);
  });
  const forget = ({ forget: key }) => write(read().filter((known) => known.key !== key));

  const ago = (time) => {
    const minutes = Math.round((Date.now() - time) / 60000);
    if (minutes < 1) return "now";
    if (minutes < 60) return `${minutes} min ago`;
    return minutes < 48 * 60 ? `${Math.round(minutes / 60)} h ago` : new Date(time).toLocaleDateString();
  };
  const element = (name, text, css) => {
    const made = document.createElement(name);
    made.textContent = text;
    if (css) made.className = css;
    return made;
  };
  const list = (place) => {
    const here = document.querySelector("[data-session]")?.dataset.session;
    const rows = read().filter((known) => known.key !== here).map((known) => {
      const row = document.createElement("li");
      const open = element("a", known.name || "Unnamed session", "el-link");
      open.href = link(known.key);
      const edits = `${known.edits} edit${known.edits === 1 ? "" : "s"}`;
      row.append(open, element("span", [edits, ago(known.time), ...(known.kind === "follow" ? ["following"] : [])].join(" · "), "el-why"));
      return row;
    });
    place.replaceChildren(...(rows.length ? rows : [element("li", here ? "None besides this one." : "None yet.", "el-why")]));
  };

  const copy = async (button) => {
    const words = button.textContent, address = link(button.dataset.copy, "", button.dataset.as);
    try {
      await navigator.clipboard.writeText(address);
      button.textContent = "Copied";
    } catch {
      window.prompt("Copy this link:", address); // no clipboard where the page is not served by HTTPS
    }
    setTimeout(() => { button.textContent = words; }, 1500);
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-copy]");
    if (button) copy(button);
  });

  /* Each request is met once: what was met is marked. */
  const meet = (attribute, answer) =>
    document.querySelectorAll(`[data-${attribute}]:not([data-met])`).forEach((place) => {
      place.dataset.met = "";
      answer(place);
    });
  const look = () => {
    meet("session", (place) => { remember(place.dataset); document.querySelectorAll("[data-sessions]").forEach(list); });
    meet("view", (place) => show(place.dataset));
    meet("forget", (place) => forget(place.dataset));
    meet("sessions", list);
    const knock = document.querySelector(".el-knock:not([data-met])"); // the widgets are here: the kernel may go on
    if (knock) { knock.dataset.met = ""; knock.click(); }
    // Widgets cannot carry ARIA attributes of their own, so what must be announced is marked by class and named here.
    document.querySelectorAll(".el-live:not([aria-live])").forEach((place) => place.setAttribute("aria-live", "polite"));
  };
  /* Widgets have no keys, and rows of the timeline are no controls: here they get both. Letters act only in the timeline,
     where nothing is typed. */
  const ACTS = { Enter: ".el-row-goto", o: ".el-row-toggle", p: ".el-row-pin", b: ".el-row-branch" };
  const LOG = { u: ".el-key-undo", r: ".el-key-redo" };
  const press = (place, selector) => {
    const button = place.querySelector(selector);
    if (button && !button.disabled) button.click();
  };
  document.addEventListener("keydown", (event) => {
    const timeline = event.target.closest?.(".el-timeline"), row = event.target.closest?.(".el-step");
    if (!timeline || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (row && ACTS[key] && (key !== "Enter" || event.target === row)) press(row, ACTS[key]);
    else if (LOG[key]) press(document, LOG[key]);
    else return;
    event.preventDefault();
  });
  /* A list is one stop of the Tab key: the arrows go on from there, up and down between rows, left and right within one. */
  const LISTS = [
    { list: ".el-steps", item: ".el-step", first: ".el-step-now", inner: "button" },
    { list: ".el-cards", item: "summary", first: "summary", inner: "" },
    { list: ".el-segments", item: ".widget-toggle-button", first: ".mod-active", inner: "", across: true },
  ];
  const rove = () => LISTS.forEach(({ list, item, first, inner }) => document.querySelectorAll(list).forEach((place) => {
    const items = [...place.querySelectorAll(item)];
    const stop = items.find((one) => one.contains(document.activeElement)) || items.find((one) => one.matches(first)) || items[0];
    for (const one of items) {
      one.tabIndex = one === stop ? 0 : -1;
      if (inner) one.querySelectorAll(inner).forEach((part) => { part.tabIndex = -1; });
    }
  }));
  const shown = (part) => part.offsetParent !== null && !part.disabled;
  document.addEventListener("keydown", (event) => {
    const kind = LISTS.find(({ list, item }) => event.target.closest?.(`${list} ${item}`));
    if (!kind || event.ctrlKey || event.metaKey || event.altKey) return;
    const item = event.target.closest(kind.item), items = [...item.closest(kind.list).querySelectorAll(kind.item)].filter(shown);
    const inside = kind.inner ? [item, ...[...item.querySelectorAll(kind.inner)].filter(shown)] : [];
    const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!by || (event.target !== item && !inside.includes(event.target))) return;
    const next = kind.across ? items[items.indexOf(item) + by[0] + by[1]]
      : by[0] ? items[items.indexOf(item) + by[0]] : inside[inside.indexOf(event.target) + by[1]];
    if (!next && !by[0] && !kind.across && !inside.length) return;
    event.preventDefault();
    if (next) { next.focus(); rove(); }
  });
  document.addEventListener("focusin", rove);
  /* A cell of the lens is chosen by two lists, or by a click on it; the chosen one is marked. */
  const point = () => document.querySelectorAll(".el-lens").forEach((lens) => {
    const [row, layer] = [...lens.closest(".el-inside").querySelectorAll(".el-lens-cell select")].map((list) => list.selectedIndex);
    const chosen = [...lens.querySelectorAll("tbody")].map((body) => body.rows[row]?.cells[layer + 1]);
    lens.querySelectorAll(".el-pointed").forEach((cell) => { if (!chosen.includes(cell)) cell.classList.remove("el-pointed"); });
    chosen.forEach((cell) => { if (cell && !cell.matches(".el-pointed")) cell.classList.add("el-pointed"); });
  });
  document.addEventListener("click", (event) => {
    const cell = event.target.closest?.(".el-lens td");
    if (!cell) return;
    const at = [cell.parentElement.sectionRowIndex, cell.cellIndex - 1];
    cell.closest(".el-inside").querySelectorAll(".el-lens-cell select").forEach((list, i) => {
      list.selectedIndex = at[i];
      list.dispatchEvent(new Event("change", { bubbles: true }));
    });
  });
  document.addEventListener("change", point);

  /* What is typed reaches the kernel a moment late, a click at once: all texts go before the click (panels/make_edit.py). */
  const send = () => {
    const typed = document.querySelector(".el-typed input"), texts = { at: Date.now() };
    if (!typed) return;
    document.querySelectorAll(".el-make .el-field:not(.el-typed)").forEach((place) => {
      const control = place.querySelector("input, textarea"), label = place.querySelector("label");
      const method = [...place.classList].find((name) => name.startsWith("el-of-")); // whose hyperparameter it is
      if (control && label) texts[[method, label.textContent].filter(Boolean).join(" ")] = control.value;
    });
    typed.value = JSON.stringify(texts);
    typed.dispatchEvent(new Event("change", { bubbles: true }));
  };
  document.addEventListener("click", ({ target }) => { if (target.closest?.(".el-apply button, .el-risk button")) send(); }, true);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.isComposing && event.target.matches?.(".el-make input")) send();
  }, true);
  /* With the first key, what stands there of the text before turns pale, until the kernel has taken it away. */
  document.addEventListener("input", ({ target }) => {
    if (target.closest?.(".el-make .el-form, .el-make .el-method"))
      document.querySelectorAll(".el-preview, .el-risk").forEach((part) => {
        part.dataset.stale = "";
        setTimeout(() => part.removeAttribute("data-stale"), 2000);
      });
  });
  /* Rows are drawn anew with each result; those that the visitor opened or closed stay so. */
  const unfolded = new Map();
  document.addEventListener("click", ({ target }) => {
    const row = target.closest?.("[data-row] > summary")?.parentElement;
    if (row) unfolded.set(row.dataset.row, !row.open);
  });
  const unfold = () => document.querySelectorAll("[data-row]").forEach((row) => {
    const open = unfolded.get(row.dataset.row);
    if (open !== undefined && row.open !== open) row.open = open;
  });
  /* What has the focus may go, or be hidden or disabled by what it did. Then the focus goes to Apply where an edit is made,
     in the analysis to the button that stops what was begun, elsewhere to what is next to it, and back as soon as it is
     there again. On touch screens a field would open the keys. */
  const CONTROLS = "button, input, select, textarea, summary, a[href], [tabindex='0']";
  const usable = (part) => part.isConnected && shown(part);
  const beside = (part, place) => {
    const others = [...place.querySelectorAll(CONTROLS)].filter((one) => one !== part && one.tabIndex >= 0 && shown(one));
    const after = (one) => part.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING;
    return part.isConnected ? others.find(after) || others.at(-1) : others[0];
  };
  let held = null, left = null, moving = false; // what has the focus, with all that is around it; what had it before it went
  document.addEventListener("focusin", ({ target }) => {
    const around = [];
    for (let up = target.parentElement; up && up !== document.body; up = up.parentElement) around.push(up);
    held = { part: target, around };
    if (!moving) left = null;
  });
  document.addEventListener("focusout", ({ target, relatedTarget }) => { // by the visitor's will, unless it is gone right after
    if (!relatedTarget) setTimeout(() => { if (held?.part === target && usable(target)) held = null; });
  });
  const keep = () => {
    const now = document.activeElement;
    if (!held || usable(held.part) || (now !== document.body && now !== held.part)) return;
    const { part, around } = held, make = around.find((place) => place.matches(".el-make"));
    const pane = around.find((place) => place.matches(".el-pane"));
    const stops = pane ? pane.querySelectorAll(".el-job button, .el-probe-run button") : [];
    const next = [left, make?.querySelector(".el-apply button"), ...stops].find((one) => one && usable(one))
      || around.filter((place) => place.isConnected).map((place) => beside(part, place)).find(Boolean);
    left = left || part;
    moving = true;
    next?.focus({ preventScroll: true });
    moving = false;
  };
  let keeping = false;
  if (!matchMedia("(pointer: coarse)").matches)
    new MutationObserver(() => {
      if (!keeping) setTimeout(() => { keeping = false; keep(); }, 100); // when all that comes with it is drawn too
      keeping = true;
    }).observe(document.documentElement, { attributeFilter: ["class", "style", "disabled"], childList: true, subtree: true });
  /* An edit that has ended: its result is brought into sight. */
  let running = false;
  const follow = () => {
    const was = running, make = document.querySelector(".el-make");
    running = Boolean(make?.classList.contains("el-running"));
    if (!was || running || make.querySelector("[role=alert]")) return;
    const result = document.querySelector(".el-columns"), { top } = result.getBoundingClientRect();
    if (top < 0 || top > innerHeight - 240) result.scrollIntoView({ block: "start" });
  };
  /* A row that is pointed at, or has the focus, is marked in the charts; the charts themselves mark theirs (plots/chart.py). */
  const stepOf = (row) => Number(row?.querySelector(".el-index")?.textContent ?? -1);
  let marked = -1;
  const mark = (row) => {
    const step = stepOf(row);
    if (step === marked) return;
    marked = step;
    for (const line of (window.Bokeh?.documents ?? []).flatMap((one) => [...one.all_models]))
      if (line.name === "pointed") line.setv({ location: step, visible: step >= 0 }, { sync: false });
  };
  let charted = false; // the pointer is in a chart: one that is drawn anew meanwhile does not tell that it was left
  for (const kind of ["pointerover", "focusin"])
    document.addEventListener(kind, (event) => {
      const inside = event.composedPath().some((one) => one instanceof ShadowRoot);
      if (charted && !inside) {
        document.querySelectorAll(".el-step-pointed").forEach((row) => row.classList.remove("el-step-pointed"));
        marked = null;
      }
      charted = inside;
      mark(event.target.closest?.(".el-step"));
    });
  /* A new edit has all rows drawn anew: what had the focus in one has it again. */
  let focused = null; // in the timeline: the element, its row's step, and which of the row's it is; or a class's member
  document.addEventListener("focusin", ({ target }) => {
    const row = target.closest?.(".el-step"), member = target.dataset?.member;
    focused = member ? { target, member }
      : row && { target, step: stepOf(row), part: [...row.querySelectorAll("button")].indexOf(target) };
  });
  const refocus = () => {
    if (!focused || focused.target.isConnected || document.activeElement !== document.body) return;
    if (focused.member) {
      document.querySelector(`[data-member="${focused.member}"]`)?.focus({ preventScroll: true });
      return;
    }
    const row = [...document.querySelectorAll(".el-steps .el-step")].find((one) => stepOf(one) === focused.step);
    if (row) (row.querySelectorAll("button")[focused.part] || row).focus({ preventScroll: true });
  };
  /* A chart in its shadow tree shows the focus as this says (plots/chart.py): to those who go by keys. */
  for (const [kind, outline] of [["keydown", "2px solid"], ["pointerdown", "none"]])
    document.addEventListener(kind, () => document.documentElement.style.setProperty("--chart-focus", outline), true);
  const name = (selector, attributes) =>
    document.querySelectorAll(`${selector}:not([data-named])`).forEach((place) => {
      place.dataset.named = "";
      Object.entries(attributes).forEach(([key, value]) => place.setAttribute(key, value));
    });
  const pressed = () => document.querySelectorAll(".el-segments .widget-toggle-button").forEach((button) => {
    const down = String(button.classList.contains("mod-active"));
    if (button.getAttribute("aria-pressed") !== down) button.setAttribute("aria-pressed", down);
  });
  const PARTS = { edit: ".el-make", result: ".el-after", history: ".el-timeline", charts: ".el-analysis" }; // links lead there
  const attend = (changes = []) => {
    changes.forEach(({ target }) => target.closest?.("[data-stale]")?.removeAttribute("data-stale"));
    look();
    changed();
    name(".el-steps", { role: "list", "aria-label": "Edits, the newest first" });
    name(".el-step", { role: "listitem" });
    Object.entries(PARTS).forEach(([id, part]) => name(part, { id, tabindex: "-1" }));
    refocus();
    opened();
    unfold();
    point();
    rove();
    name(".el-chart", { role: "group", "aria-label": "Chart; its numbers are in the table below it" });
  };
  /* The task of the tour that is next, or the way to the next lesson, stays in sight in its dock, also when what came of
     the tasks before has grown. */
  const coach = () => {
    const dock = document.querySelector(".el-lessons");
    const next = dock && [...dock.querySelectorAll(".el-todo-next, .el-primary")].find(shown);
    const told = next && dock.querySelector(".el-lesson-intro").textContent + next.textContent;
    if (!next || dock.dataset.told === told) return;
    dock.dataset.told = told;
    const over = next.getBoundingClientRect().bottom + 12 - dock.getBoundingClientRect().bottom;
    if (over > 0) dock.scrollTop += over;
  };
  /* A panel that a task opens is brought into sight: at once where it is open already, else as soon as it is drawn. */
  let opening = null; // what is in the panel's place meanwhile
  const reach = () => document.querySelector(".el-analysis")?.scrollIntoView({ block: "start" });
  document.addEventListener("click", ({ target }) => {
    opening = target.closest?.(".el-act-open") ? { drawn: document.querySelector(".el-pane > *") } : null;
    if (opening) reach();
  });
  const opened = () => {
    const drawn = opening && document.querySelector(".el-pane > *");
    if (!drawn || drawn === opening.drawn) return;
    opening = null;
    reach();
  };
  const locate = () => { // the address, for the followers' QR code
    const place = document.querySelector(".el-address:not([data-met])");
    if (place) { place.dataset.met = ""; put(place.querySelector("input"), location.origin + location.pathname); }
  };
  const changed = () => { pressed(); follow(); coach(); locate(); };
  new MutationObserver(changed).observe(document.documentElement, { attributeFilter: ["class"], subtree: true });
  new MutationObserver(attend).observe(document.documentElement, { childList: true, subtree: true });
  if (["localhost", "127.0.0.1", "[::1]"].includes(location.hostname)) document.documentElement.classList.add("el-loopback");

  /* The title stays until the widgets are drawn, or until there is something else to read, such as an error. */
  window.display_cells = window.voila_finish = () => {
    const cells = document.getElementById("rendered_cells");
    cells.style.display = "";
    const reveal = () => {
      if (!cells.querySelector(".el-title, pre, .jp-RenderedText")) return;
      document.getElementById("loading")?.remove();
      waiting.disconnect();
    };
    const waiting = new MutationObserver(reveal);
    waiting.observe(document.body, { childList: true, subtree: true });
    reveal();
  };

  /* A dead kernel is silently replaced by an empty one, and one that is away answers nothing: say so, offer to reload. */
  const bar = () => document.getElementById("lost");
  const tell = () => { bar().hidden = false; };
  const watch = (kernel) => {
    let timer;
    kernel.statusChanged.connect((_, status) => {
      if (["dead", "restarting", "autorestarting"].includes(status)) tell();
    });
    kernel.connectionStatusChanged.connect((_, status) => {
      clearTimeout(timer);
      if (status !== "connected") timer = setTimeout(tell, 1000 * LOST_SECONDS);
    });
  };
  const waiting = setInterval(() => {
    const kernel = window.jupyterapp?.widgetManager?.kernel;
    if (kernel) { clearInterval(waiting); watch(kernel); }
  }, 500);
})();
