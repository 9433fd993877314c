// Fields of keys in forms: their reading, their checks, and the controls that several forms have.

import { html, useState } from "./html.js";
import { Field, shown } from "./ui.js";

const IPV4 = /^(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}$/;

/** Problem of an address or CIDR block, or "". */
export function addressProblem(text) {
  const [address, bits, rest] = text.split("/");
  if (rest !== undefined) return "has more than one /";
  const isSix = address.includes(":");
  if (isSix ? !isIPv6(address) : !IPV4.test(address)) return "is neither an IPv4 nor an IPv6 address";
  const most = isSix ? 128 : 32;
  if (bits !== undefined && !(/^\d{1,3}$/.test(bits) && Number(bits) <= most)) return `must end with /0 to /${most}`;
  if (bits === "0") return "allows every address: leave the list empty for that";
  return "";
}

function isIPv6(text) {
  try {
    return new URL(`http://[${text}]/`).hostname.length > 0;
  } catch {
    return false;
  }
}

export function scopeProblem(text) {
  return /^[!#-[\]-~]{1,255}$/.test(text) ? "" : "may have letters, digits and signs, but no spaces, quotes or backslashes";
}

/** A list of short texts: Enter, comma or space ends one. */
export function TokenField({ id, label, hint, items, onChange, check, suggestions = [], placeholder = "" }) {
  const [text, setText] = useState("");
  const add = (words) => {
    const added = words.split(/[\s,]+/).filter(Boolean);
    if (added.length) onChange([...new Set([...items, ...added])]);
    setText("");
  };
  const type = (event) => {
    const value = event.target.value;
    if (/[\s,]/.test(value)) add(value);
    else setText(value);
  };
  const press = (event) => {
    if (event.key === "Enter" && text) {
      event.preventDefault();
      add(text);
    } else if (event.key === "Backspace" && !text && items.length) onChange(items.slice(0, -1));
  };
  const wrong = [...items, ...(text ? [text] : [])].map((item) => [item, check(item)]).find(([, problem]) => problem);
  // Text that is still being typed may be incomplete, so only what can't become valid is a problem.
  const shownWrong = wrong && !(wrong[0] === text && text.length < 4) ? `${shown(wrong[0])} ${wrong[1]}.` : "";
  const left = suggestions.filter((one) => !items.includes(one)).slice(0, 8);
  return html`<${Field} id=${id} label=${label} hint=${hint} wrong=${shownWrong}>${(props) => html`
    <div class="token-field">${items.map((item) => html`<span class="token ${check(item) ? "wrong" : ""}">${shown(item)}<button type="button" aria-label=${`Remove ${shown(item)}`} onClick=${() => onChange(items.filter((other) => other !== item))}>\u00d7</button></span>`)}
      <input ...${props} value=${text} placeholder=${items.length ? "" : placeholder} onInput=${type} onKeyDown=${press} onBlur=${() => add(text)} autocomplete="off" spellcheck=${false} autocapitalize="none" /></div>
    ${left.length > 0 && html`<div class="chips" aria-label=${`Suggestions for ${label}`}>${left.map((one) => html`<button type="button" class="chip" onClick=${() => onChange([...items, one])}>+ ${shown(one)}</button>`)}</div>`}`}<//>`;
}

/** Problem of metadata as typed, or "". */
export function metadataProblem(text) {
  if (!text.trim()) return "";
  try {
    const value = JSON.parse(text);
    return value && typeof value === "object" && !Array.isArray(value) ? "" : "must be a JSON object, such as {\"team\": \"blue\"}";
  } catch (error) {
    return `isn't JSON yet: ${error.message}`;
  }
}

export const TTLS = [
  { value: "1h", label: "1 hour" },
  { value: "24h", label: "1 day" },
  { value: "168h", label: "7 days" },
  { value: "720h", label: "30 days" },
  { value: "2160h", label: "90 days" },
  { value: "8760h", label: "1 year" },
];

export const WINDOWS = [
  { value: "1s", label: "second" },
  { value: "60s", label: "minute" },
  { value: "3600s", label: "hour" },
  { value: "86400s", label: "day" },
];

export const REFILLS = [
  { value: "", label: "never refilled" },
  { value: "day", label: "refilled every day" },
  { value: "week", label: "refilled every week" },
  { value: "month", label: "refilled every month" },
];

/** Credits: so many uses, and a refill; an empty number means that uses cost nothing. */
export function CreditsField({ credits, refill, onChange }) {
  const wrong = creditsProblem(credits, refill);
  return html`<${Field} id="credits" label="Credits" hint="Uses that are paid for. Empty: uses cost nothing. A refill fills up to the same number, at midnight UTC." wrong=${wrong}>${(props) => html`<div class="row">
    <input class="input" ...${props} inputmode="numeric" value=${credits} placeholder="none" onInput=${(event) => onChange({ credits: event.target.value.trim(), refill })} />
    <select class="input" aria-label="Refill of the credits" value=${refill} onChange=${(event) => onChange({ credits, refill: event.target.value })}>
      ${REFILLS.map((one) => html`<option value=${one.value} selected=${one.value === refill}>${one.label}</option>`)}</select></div>`}<//>`;
}

/** Problem of credits as typed, or "". */
export function creditsProblem(credits, refill) {
  if (credits === "") return refill ? "Say how many." : "";
  if (!/^\d{1,16}$/.test(credits) || Number(credits) > 1e15) return "Must be a whole number up to 1000000000000000.";
  return refill && Number(credits) === 0 ? "A refill needs at least 1." : "";
}

/** Returns credits as the API takes them, or nothing. */
export function creditsOf({ credits, refill }) {
  if (credits === "" || creditsProblem(credits, refill)) return undefined;
  return { remaining: credits, ...(refill && { refill: { amount: credits, every: refill } }) };
}

const quotaProblem = (quota) => (/^[1-9]\d{0,17}$/.test(quota) ? "" : "Must be a whole number from 1.");

/** Problem of limits with names as typed, or "". */
export function limitsProblem(limits) {
  const wrong = limits.find((limit) => !/^[a-z0-9_]{1,32}$/.test(limit.name));
  if (wrong) return `${wrong.name ? shown(wrong.name) : "Each limit"} needs a name of small letters, digits and _, at most 32.`;
  const names = limits.map((limit) => limit.name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice) return `${twice} stands there twice.`;
  const other = limits.find((limit) => quotaProblem(limit.quota));
  return other ? `${other.name}: ${quotaProblem(other.quota)}` : "";
}

/** Windows that can be chosen; one of the API's that isn't among them stays. */
const windowsWith = (window) => (WINDOWS.some((one) => one.value === window) ? WINDOWS : [...WINDOWS, { value: window, label: window }]);

/** Several limits, each with a name: so many requests per window. */
export function LimitsField({ limits, most, onChange }) {
  const change = (index, changes) => onChange(limits.map((limit, at) => (at === index ? { ...limit, ...changes } : limit)));
  // A limit that is still being typed is incomplete, not wrong.
  const wrong = limits.every((limit) => limit.name && limit.quota) ? limitsProblem(limits) : "";
  return html`<fieldset class="field stack"><legend>Limits of all its keys together</legend>
    ${limits.map((limit, index) => html`<div class="row">
      <input class="input mono" aria-label=${`Name of limit ${index + 1}`} placeholder="name" value=${limit.name} spellcheck=${false} autocapitalize="none" onInput=${(event) => change(index, { name: event.target.value.trim() })} />
      <input class="input" aria-label=${`Requests of limit ${index + 1}`} placeholder="requests" inputmode="numeric" value=${limit.quota} onInput=${(event) => change(index, { quota: event.target.value.trim() })} />
      <select class="input" aria-label=${`Window of limit ${index + 1}`} value=${limit.window} onChange=${(event) => change(index, { window: event.target.value })}>
        ${windowsWith(limit.window).map((one) => html`<option value=${one.value} selected=${one.value === limit.window}>per ${one.label}</option>`)}</select>
      <button type="button" class="button" aria-label=${`Remove limit ${index + 1}`} onClick=${() => onChange(limits.filter((_, at) => at !== index))}>\u00d7</button></div>`)}
    ${limits.length < most && html`<div><button type="button" class="button" onClick=${() => onChange([...limits, { name: "", quota: "", window: "60s" }])}>Add a limit</button></div>`}
    ${wrong && html`<p class="wrong" role="alert">${wrong}</p>`}
  </fieldset>`;
}

/** One limit: so many requests, or another unit, per window; an empty number means none. */
export function LimitField({ quota, window, unit = "requests", onChange }) {
  const wrong = quota && quotaProblem(quota);
  return html`<${Field} id="quota" label=${`Limit of ${unit}`} hint="Empty for none" wrong=${wrong}>${(props) => html`<div class="row">
    <input class="input" ...${props} inputmode="numeric" value=${quota} placeholder="none" onInput=${(event) => onChange({ quota: event.target.value.trim(), window })} />
    <select class="input" aria-label="Window of the limit" value=${window} onChange=${(event) => onChange({ quota, window: event.target.value })}>
      ${windowsWith(window).map((one) => html`<option value=${one.value} selected=${one.value === window}>per ${one.label}</option>`)}</select></div>`}<//>`;
}
