// Parts that several screens are made of.

import { remedy } from "./api.js";
import { html, render, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { Icon } from "./icons.js";
import { badge } from "./keystate.js";
import { exactTime, relativeTime } from "./time.js";

/**
 * Characters that control a terminal, change the direction of writing, have no width, or look like a
 * space without being one: those of src/escape.rs, so that the console spells out what the command
 * line does.
 */
const INVISIBLE = new RegExp(
  "[\\u{0}-\\u{1f}\\u{7f}-\\u{a0}\\u{ad}\\u{34f}\\u{61c}\\u{115f}-\\u{1160}\\u{1680}\\u{17b4}-\\u{17b5}\\u{180b}-\\u{180f}" +
    "\\u{2000}-\\u{200f}\\u{2028}-\\u{202f}\\u{205f}-\\u{206f}\\u{2800}\\u{3000}\\u{3164}\\u{fdd0}-\\u{fdef}\\u{fe00}-\\u{fe0f}\\u{feff}" +
    "\\u{ffa0}\\u{fff0}-\\u{fffb}\\u{fffe}-\\u{ffff}\\u{13430}-\\u{1345f}\\u{16fe4}\\u{1bca0}-\\u{1bca3}\\u{1d159}\\u{1d173}-\\u{1d17a}" +
    "\\u{1fffe}-\\u{1ffff}\\u{2fffe}-\\u{2ffff}\\u{e0000}-\\u{e0fff}\\u{ffffe}-\\u{fffff}\\u{10fffe}-\\u{10ffff}]",
  "gu",
);

/** Text of strangers as it is shown: without characters that could change how its surroundings look. */
export function shown(text) {
  return String(text ?? "").replace(INVISIBLE, (char) => {
    return `\u2039U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}\u203a`;
  });
}

/** A time in words; the exact one is its title, and is read out. */
export function Time({ at, empty = "never" }) {
  const [, setNow] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => setNow((before) => before + 1), 20_000);
    return () => clearInterval(timer);
  }, []);
  if (!at) return html`<span class="muted">${empty}</span>`;
  return html`<time datetime=${at} title=${exactTime(at)} class="nowrap">${relativeTime(at)}</time>`;
}

export function Badge({ of }) {
  const { tone, word } = badge(of);
  return html`<span class="pill ${tone}">${word}</span>`;
}

export function Tags({ items, most = 3 }) {
  if (!items?.length) return html`<span class="muted">none</span>`;
  const rest = items.length - most;
  return html`<span class="tags">
    ${items.slice(0, most).map((item) => html`<span class="tag" title=${shown(item)}>${shown(item)}</span>`)}
    ${rest > 0 && html`<span class="muted small" title=${shown(items.slice(most).join(", "))}>+${rest}</span>`}
  </span>`;
}

export function Notice({ tone = "info", icon, title, children, action }) {
  const name = icon ?? { bad: "warn", warn: "warn", good: "check", info: "info" }[tone];
  return html`<div class="notice ${tone}" role=${tone === "bad" ? "alert" : "status"}>
    <${Icon} name=${name} /><div>${title && html`<p class="what">${title}</p>`}${children}</div>${action}
  </div>`;
}

/** A failed call, and what to do. `isOld` says that what stands below was read before. */
export function Failure({ problem, retry, isOld = false, children }) {
  const unknown = problem.isUnknown;
  return html`<${Notice} tone=${unknown ? "info" : "bad"}
    title=${unknown ? "This server can't do that yet" : problem.violations?.length > 1 ? `${problem.violations.length} things have to change` : shown(problem.message)}
    action=${retry && !unknown && html`<button class="button small" onClick=${retry}>Try again</button>`}>
    <p>${remedy(problem)}${isOld && " What is shown below was read earlier."}</p>${children}
    ${problem.violations?.length > 1 && html`<ul>${problem.violations.map((one) => html`<li>${shown(one.field)}: ${shown(one.description ?? one.message)}</li>`)}</ul>`}
    ${problem.metadata?.request_id && html`<p class="muted small">Request <span class="mono">${problem.metadata.request_id}</span></p>`}
  <//>`;
}

export function Loading({ what }) {
  return html`<p class="loading" role="status">Loading ${what}</p>`;
}

/** State of a loader: its progress, or its data; above data of an earlier time, why there is none of now. */
export function Loaded({ of, what, children }) {
  const failure = of.error && html`<${Failure} problem=${of.error} retry=${of.reload} isOld=${of.data !== undefined} />`;
  if (of.data === undefined) return failure || html`<${Loading} what=${what} />`;
  return html`${failure}${children(of.data)}`;
}

export function Empty({ icon = "search", title, children }) {
  return html`<div class="empty"><${Icon} name=${icon} /><h2>${title}</h2>${children}</div>`;
}

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS there is no clipboard of that kind.
    const field = document.createElement("textarea");
    field.value = text;
    field.setAttribute("readonly", "");
    field.className = "visually-hidden";
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    return copied;
  }
}

export function Copy({ text, label = "Copy", what = "", primary = false }) {
  const [state, setState] = useState("");
  const copy = async () => {
    setState((await copyText(text)) ? "Copied" : "Select and copy it");
    setTimeout(() => setState(""), 2000);
  };
  return html`<button type="button" class="button ${primary ? "primary" : ""} ${label ? "small" : "quiet icon-button"}" onClick=${copy}
    aria-label=${what ? `Copy ${what}` : undefined} title=${what ? `Copy ${what}` : undefined}>
    <${Icon} name=${state === "Copied" ? "check" : "copy"} />${label && html`<span aria-live="polite">${state || label}</span>`}
    ${!label && html`<span class="visually-hidden" aria-live="polite">${state}</span>`}
  </button>`;
}

export function Mono({ text, what }) {
  return html`<span class="mono wrap">${shown(text)}</span> <${Copy} text=${text} label="" what=${what} />`;
}

/** The same as commands, one form at a time. What `mask` hides on the screen is still copied. */
export function Commands({ forms, open = false, title = "Do the same on the command line", mask = (text) => text }) {
  const names = Object.keys(forms).filter((name) => forms[name]);
  const [chosen, setChosen] = useState(names[0]);
  const current = names.includes(chosen) ? chosen : names[0];
  const body = html`<div class="commands">
    <div><span><span class="tabs">${names.map((name) => html`<button type="button" aria-pressed=${name === current} onClick=${() => setChosen(name)}>${name}</button>`)}</span></span>
      <${Copy} text=${forms[current]} what=${`${current} command`} /></div>
    <pre tabindex="0" aria-label=${`${current} command`}>${shownLines(mask(forms[current]))}</pre>
  </div>`;
  return open ? body : html`<details class="fold"><summary>${title}</summary>${body}</details>`;
}

// Commands of several lines keep their ends of lines.
function shownLines(text) {
  return text.split("\n").map(shown).join("\n");
}

/** A labelled control. `children` gets its id and the ids that describe it. */
export function Field({ id, label, hint, wrong, children }) {
  const described = [hint && `${id}-hint`, wrong && `${id}-wrong`].filter(Boolean).join(" ") || undefined;
  return html`<div class="field">
    <label for=${id}>${label}</label>
    ${children({ id, "aria-describedby": described, "aria-invalid": wrong ? "true" : undefined })}
    ${hint && html`<span class="hint" id=${`${id}-hint`}>${hint}</span>`}
    ${wrong && html`<span class="wrong" id=${`${id}-wrong`}>${wrong}</span>`}
  </div>`;
}

export function Choices({ name, legend, options, value, onChange, tall = false }) {
  return html`<fieldset class="field"><legend>${legend}</legend><div class="choices">
    ${options.map((option) => html`<label class="choice ${tall ? "tall" : ""}">
      <input type="radio" name=${name} value=${option.value} checked=${option.value === value} onChange=${() => onChange(option.value)} />
      <span>${option.label}${option.note && html`<small>${option.note}</small>`}</span></label>`)}
  </div></fieldset>`;
}

/** A dialog that takes the keyboard, and gives it back. */
export function Dialog({ title, onClose, children, foot }) {
  const element = useRef(null);
  useLayoutEffect(() => {
    const before = document.activeElement;
    const dialog = element.current;
    dialog.showModal();
    dialog.querySelector("[autofocus]")?.focus();
    return () => {
      // Nothing beside an open dialog takes the focus.
      dialog.close();
      before?.focus?.();
    };
  }, []);
  const cancel = (event) => {
    event.preventDefault();
    onClose();
  };
  return html`<dialog ref=${element} aria-labelledby="dialog-title" onCancel=${cancel}>
    <div class="dialog-head"><h2 id="dialog-title">${title}</h2>
      <button type="button" class="button quiet icon-button" aria-label="Close" onClick=${onClose}><${Icon} name="x" /></button></div>
    <div class="dialog-body">${children}</div>
    <div class="dialog-foot">${foot}</div>
  </dialog>`;
}

let toasts = [];
let toastNumber = 0;

/** Says what has happened, for a few seconds, and to those who listen. */
export function toast(text) {
  const id = ++toastNumber;
  toasts = [...toasts, { id, text }];
  drawToasts();
  setTimeout(() => {
    toasts = toasts.filter((one) => one.id !== id);
    drawToasts();
  }, 5000);
}

function drawToasts() {
  let place = document.querySelector(".toasts");
  if (!place) {
    place = document.createElement("div");
    place.className = "toasts";
    place.setAttribute("role", "status");
    place.setAttribute("aria-live", "polite");
    document.body.append(place);
  }
  render(html`${toasts.map((one) => html`<div class="toast" key=${one.id}>${shown(one.text)}</div>`)}`, place);
}

/** Gives the browser a file of text. */
export function save(name, type, text) {
  const link = document.createElement("a");
  const url = URL.createObjectURL(new Blob([text], { type }));
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
