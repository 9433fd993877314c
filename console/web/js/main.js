// The console: its frame, its screens, its keys of the keyboard.

import { Problem, hasToken, setToken } from "./api.js";
import { html, render, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { Icon, Logo } from "./icons.js";
import { guardText, parse } from "./router.js";
import { loadSession, may, session } from "./session.js";
import { Activity } from "./screens/activity.js";
import { ActorScreen } from "./screens/actor.js";
import { Import } from "./screens/import.js";
import { Instances } from "./screens/instances.js";
import { Issue } from "./screens/issue.js";
import { KeyScreen } from "./screens/key.js";
import { Keys } from "./screens/keys.js";
import { Leak } from "./screens/leak.js";
import { Overview } from "./screens/overview.js";
import { Rotate } from "./screens/rotate.js";
import { Routes } from "./screens/routes.js";
import { Dialog, Failure, Field, Notice, shown } from "./ui.js";

const NAV = [
  ["", "Overview", "overview", "o"],
  ["keys", "Keys", "key", "k"],
  ["leak", "Leaked key", "leak", "l"],
  ["routes", "Routes", "route", "r"],
  ["activity", "Activity", "pulse", "a"],
  ["instances", "Instance", "server", "i"],
];

const SHORTCUTS = [
  [["/"], "Search keys"],
  [["n"], "Issue a key"],
  [["j", "k"], "Next, previous key of the list"],
  [["Enter"], "Open it"],
  [["x"], "Select it"],
  ...NAV.map(([, label, , letter]) => [["g", letter], `Go to ${label}`]),
  [["?"], "This help"],
];

function screenOf({ segments, query }) {
  const [first = "", second = "", third = "", fourth = ""] = segments;
  if (first === "") return { title: "Overview", view: html`<${Overview} />` };
  if (first === "keys" && third && fourth === "rotate") return { title: "Rotate", view: html`<${Rotate} id=${third} key=${`rotate ${third}`} />` };
  if (first === "keys" && third) return { title: "Key", view: html`<${KeyScreen} id=${third} key=${third} />` };
  if (first === "keys") return { title: "Keys", view: html`<${Keys} kind=${second === "imported" ? "imported" : "issued"} query=${query} />` };
  if (first === "actors" && second) return { title: "Actor", view: html`<${ActorScreen} id=${second} key=${second} />` };
  if (first === "issue") return { title: "Issue a key", view: html`<${Issue} query=${query} />` };
  if (first === "import") return { title: "Import a key", view: html`<${Import} />` };
  if (first === "leak") return { title: "Leaked key", view: html`<${Leak} />` };
  if (first === "routes") return { title: "Routes", view: html`<${Routes} query=${query} />` };
  if (first === "activity") return { title: "Activity", view: html`<${Activity} query=${query} key=${`activity ${query.get("key")}`} />` };
  if (first === "instances") return { title: "Instance", view: html`<${Instances} />` };
  return { title: "Not found", view: html`<div class="page"><h1>There is no such screen</h1><p><a href="#/">Go to the overview</a></p></div>` };
}

let address = location.hash;

/** The address, changed only where a screen that is left agrees. */
function useAddress() {
  const [, setTurn] = useState(0);
  useEffect(() => {
    const change = () => {
      const question = location.hash === address ? "" : guardText();
      if (question && !confirm(question)) {
        history.replaceState(null, "", address || "#/");
        return;
      }
      address = location.hash;
      setTurn((before) => before + 1);
    };
    window.addEventListener("hashchange", change);
    return () => window.removeEventListener("hashchange", change);
  }, []);
  return parse(address);
}

function App() {
  const at = useAddress();
  const [state, setState] = useState({ ready: false, problem: null });
  const [isOpen, setOpen] = useState(false);
  const [help, setHelp] = useState(false);
  const main = useRef(null);
  const menu = useRef(null);
  const load = () => loadSession().then(() => setState({ ready: true, problem: null }), (problem) => setState({ ready: true, problem }));
  useEffect(() => void load(), []);
  useEffect(() => keyboard(() => setHelp(true)), []);
  useLayoutEffect(() => (isOpen ? closing(menu.current, () => setOpen(false)) : undefined), [isOpen]);
  const { title, view } = screenOf(at);
  const path = at.segments.join("/");
  useEffect(() => {
    document.title = `${title} \u00b7 Talos`;
  }, [title]);
  useLayoutEffect(() => {
    setOpen(false);
    window.scrollTo(0, 0);
    // Screen readers announce which screen this is.
    if (!main.current?.querySelector("[autofocus]")) main.current?.focus({ preventScroll: true });
    else main.current.querySelector("[autofocus]").focus();
  }, [path]);
  const content = !state.ready ? html`<p class="loading" role="status">Asking the server who you are</p>` : state.problem ? html`<${SignIn} problem=${state.problem} retry=${load} />` : view;
  return html`<a class="skip" href="#main" onClick=${(event) => {
    event.preventDefault();
    main.current.focus();
  }}>Skip to content</a>
  <div class="shell"><header class="frame">
    <div class="topbar"><button ref=${menu} class="button quiet icon-button" aria-label="Menu" aria-expanded=${isOpen ? "true" : "false"} aria-controls="side" onClick=${() => setOpen(!isOpen)}><${Icon} name=${isOpen ? "x" : "menu"} /></button>
      <a class="brand" href="#/"><${Logo} />Talos</a>${state.ready && !state.problem && may("adminIssueApiKey") && html`<a class="button small primary" href="#/issue">Issue</a>`}</div>
    <div class="side ${isOpen ? "open" : ""}" id="side" onClick=${(event) => event.target.closest("a") && setOpen(false)}><a class="brand" href="#/"><${Logo} />Talos <small>console</small></a>
      <nav class="nav" aria-label="Screens">${NAV.map(([name, label, icon]) => html`<a href=${`#/${name === "keys" ? "keys/issued" : name}`} aria-current=${isCurrent(at.segments[0] ?? "", name) ? "page" : undefined}><${Icon} name=${icon} />${label}</a>`)}</nav>
      <${Foot} openHelp=${() => setHelp(true)} /></div></header>
    <main class="main" id="main" tabindex="-1" ref=${main} aria-label=${title}>${content}</main>
  </div>
  ${help && html`<${Help} onClose=${() => setHelp(false)} />`}`;
}

/** Closes the menu of narrow screens by Escape and by what is pressed beside it. */
function closing(button, close) {
  const press = (event) => {
    if (!event.target.closest("#side, dialog") && !button.contains(event.target)) close();
  };
  const type = (event) => {
    if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
    close();
    button.focus();
  };
  window.addEventListener("pointerdown", press);
  window.addEventListener("keydown", type);
  return () => {
    window.removeEventListener("pointerdown", press);
    window.removeEventListener("keydown", type);
  };
}

const isCurrent = (first, name) => first === name || (name === "keys" && ["issue", "import", "actors"].includes(first));

function Foot({ openHelp }) {
  return html`<div class="side-foot"><div class="whoami">${session.known ? html`<span class="muted">${session.mode === "none" ? "Nobody signs in here: everybody who reaches this port has the rights of" : "You are"}</span>
      <b class="wrap">${session.mode === "none" ? session.role : shown(session.name)}</b>${session.mode !== "none" && html`<span><span class="tag">${session.role}</span></span>`}` : html`<span class="muted">The server decides what you may do</span>`}</div>
    <div class="foot-tools"><${Theme} /><button class="button quiet small" onClick=${openHelp}><${Icon} name="help" />Keys <kbd>?</kbd></button></div></div>`;
}

/** Light or dark, until the page is left; at first as the system has it. */
function Theme() {
  const isDark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const [dark, setDark] = useState(isDark());
  const change = () => {
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    setDark(!dark);
    window.dispatchEvent(new Event("themechange"));
  };
  return html`<button class="button quiet icon-button" onClick=${change} aria-label=${dark ? "Use light colours" : "Use dark colours"} title=${dark ? "Light" : "Dark"}><${Icon} name=${dark ? "sun" : "moon"} /></button>`;
}

function Help({ onClose }) {
  return html`<${Dialog} title="Keys of the keyboard" onClose=${onClose} foot=${html`<button class="button primary" onClick=${onClose}>Close</button>`}>
    <dl class="shortcut-list">${SHORTCUTS.map(([keys, words]) => html`<dt>${keys.map((one) => html`<kbd>${one}</kbd>`)}</dt><dd>${words}</dd>`)}</dl><//>`;
}

/** Shown when the server doesn't know the caller, or can't be reached. */
function SignIn({ problem, retry }) {
  const [token, change] = useState("");
  if (!(problem instanceof Problem) || problem.status !== 401) return html`<div class="page"><h1>The console can't start</h1><${Failure} problem=${problem} retry=${retry} /></div>`;
  const submit = (event) => {
    event.preventDefault();
    setToken(token);
    retry();
  };
  return html`<div class="page"><div class="head"><div><h1>Who are you?</h1><p>The server doesn't know you yet.</p></div></div>
    <${Notice} title="Usually the gateway in front signs you in"><p>An identity-aware proxy adds your token to each request. Open this page through it, or reload to sign in again.</p><//>
    <form class="card" onSubmit=${submit}><div class="card-body stack">
      <${Field} id="token" label="Or give a token" hint="Kept in this page's memory only: never stored, gone on reload" wrong=${hasToken() ? "The server doesn't take this token." : ""}>${(props) => html`<input class="input mono" type="password" autocomplete="off" ...${props} value=${token} onInput=${(event) => change(event.target.value)} />`}<//>
      <div class="actions"><button class="button primary" disabled=${!token.trim()}>Go on</button></div></div></form></div>`;
}

let pending = "";
let pendingTimer = 0;

/** Listens for keys that mean something on every screen. */
function keyboard(openHelp) {
  const press = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest?.("input, textarea, select, [contenteditable]")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (pending === "g") {
      pending = "";
      const found = NAV.find(([, , , letter]) => letter === event.key);
      if (found) location.hash = `#/${found[0] === "keys" ? "keys/issued" : found[0]}`;
      return;
    }
    if (event.key === "g") {
      pending = "g";
      clearTimeout(pendingTimer);
      pendingTimer = setTimeout(() => (pending = ""), 1500);
    } else if (event.key === "?") openHelp();
    else if (event.key === "n") location.hash = "#/issue";
    else if (event.key === "/") {
      event.preventDefault();
      focusSearch();
    } else if (event.key === "j" || event.key === "k") moveCursor(event.key === "j" ? 1 : -1);
    else if (event.key === "x") document.activeElement?.closest?.("tr")?.querySelector("input[type=checkbox]")?.click();
    else return;
    if (event.key !== "x") event.preventDefault();
  };
  window.addEventListener("keydown", press);
  return () => window.removeEventListener("keydown", press);
}

function focusSearch(tries = 20) {
  const field = document.getElementById("search");
  if (field) field.focus();
  else if (tries === 20) {
    location.hash = "#/keys/issued";
    setTimeout(() => focusSearch(tries - 1), 50);
  } else if (tries > 0) setTimeout(() => focusSearch(tries - 1), 50);
}

/** Moves the focus from key to key of a list. */
function moveCursor(step) {
  const links = [...document.querySelectorAll("a.row-link")];
  const at = links.indexOf(document.activeElement?.closest?.("tr")?.querySelector("a.row-link"));
  links[Math.max(0, Math.min(links.length - 1, at < 0 ? 0 : at + step))]?.focus();
}

const place = document.getElementById("app");
place.replaceChildren();
render(html`<${App} />`, place);
