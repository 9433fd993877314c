// The holder's page on the public plane: what one's own key can do, and the way to revoke it.

import { call } from "./api.js";
import { buckets, Legend, UsageChart } from "./chart.js";
import { curl } from "./commands.js";
import { html, render, useAction, useState } from "./html.js";
import { Icon, Logo } from "./icons.js";
import { limitsOf, sentence } from "./keystate.js";
import { count, windowWords } from "./time.js";
import { Commands, Dialog, Failure, Field, Notice, Tags, Time, shown } from "./ui.js";

const REASONS = [
  ["REVOCATION_REASON_KEY_COMPROMISE", "Somebody else may have it"],
  ["REVOCATION_REASON_SUPERSEDED", "I have a newer key"],
  ["REVOCATION_REASON_AFFILIATION_CHANGED", "My role changed"],
  ["REVOCATION_REASON_UNSPECIFIED", "I don't want to say"],
];

function App() {
  const [key, setKey] = useState("");
  const [asking, setAsking] = useState(false);
  const [revoked, setRevoked] = useState(false);
  const { run: look, reset, busy, problem, answer: report } = useAction(async () => {
    const end = new Date();
    const start = new Date(end - 29 * 86_400_000);
    const query = { group_by: "day,outcome", start_time: start.toISOString(), end_time: end.toISOString(), page_size: 1000 };
    const answer = await call("getUsage", { query, headers: { authorization: `Bearer ${key.trim()}` } });
    return { ...answer, chart: buckets(answer.rows, start, end, false) };
  });
  const forget = () => {
    setKey("");
    reset();
    setRevoked(false);
  };
  return html`<main class="holder"><p class="brand"><${Logo} />Talos <small>API keys</small></p>
    <div class="head"><div><h1>Your API key</h1><p>See how your key is used, and revoke it if somebody else may have it. It is sent to this server only and forgotten when you leave.</p></div></div>
    ${revoked ? html`<${Notice} tone="good" title="The key is revoked"><p>It is refused everywhere within seconds. Ask whoever gave it to you for a new one.</p><//><div><button class="button" onClick=${forget}>Look at another key</button></div>` : html`
    <form class="card" onSubmit=${look} autocomplete="off"><div class="card-body stack">
      <${Field} id="key" label="Key" hint="The whole key, as you send it with your requests">${(props) => html`<input class="input mono" type="password" ...${props} value=${key} autofocus autocomplete="off" autocapitalize="none" spellcheck=${false} maxlength="16384" onInput=${(event) => {
        setKey(event.target.value);
        reset();
      }} />`}<//>
      <div class="actions"><button class="button primary" disabled=${!key.trim() || busy}><${Icon} name="search" />${busy ? "Looking" : "Show my key"}</button>
        <button type="button" class="button danger" disabled=${!key.trim()} onClick=${() => setAsking(true)}><${Icon} name="ban" />Revoke it</button></div></div></form>
    ${problem && html`<${Refused} problem=${problem} />`}
    ${report && html`<${Report} of=${report} />`}
    <${Commands} forms=${{ talos: "printf %s \"$KEY\" | talos keys self-revoke -", curl: curl("revokeApiKey", { body: { credential: "$KEY", reason: "REVOCATION_REASON_KEY_COMPROMISE" } }) }} title="Revoke it on the command line" />`}
    ${asking && html`<${Revoke} secret=${key.trim()} onClose=${(done) => {
      setAsking(false);
      if (done) {
        setKey("");
        setRevoked(true);
      }
    }} />`}
  </main>`;
}

/** One text for every key that isn't valid, as the server has one answer. */
function Refused({ problem }) {
  if (![400, 401, 403, 404].includes(problem.status)) return html`<${Failure} problem=${problem} />`;
  return html`<${Notice} tone="bad" title="This isn't a key that works here"><p>It may be mistyped, revoked, expired, or for another service. Check that you pasted all of it.</p><//>`;
}

function Report({ of: report }) {
  const fact = (name, value) => value !== undefined && html`<div><dt>${name}</dt><dd>${value}</dd></div>`;
  const key = report.key ?? { scopes: [] };
  const limits = limitsOf(key).map((limit) => `${limit.quota} per ${windowWords(limit.window)}`);
  return html`<section class="card" aria-label="Your key"><header><h2>${shown(key.name ?? "Your key")}</h2><span class="pill ${key.supersede_time ? "warn" : "good"}">${key.supersede_time ? "Being replaced" : "Works"}</span></header><div class="card-body stack">
    ${key.name && html`<p class="strong">${shown(ownSentence(key))}</p>`}<dl class="facts wide">
      ${fact("Id", html`<span class="mono small">${report.key_id}</span>`)}
      ${fact("Last used", html`<${Time} at=${report.last_used_time} />${report.last_used_address ? ` from ${report.last_used_address}` : ""}`)}
      ${fact("First used", html`<${Time} at=${report.first_used_time} />`)}
      ${report.key && fact("Scopes", html`<${Tags} items=${key.scopes} most=${20} />`)}
      ${report.key && fact("Expires", html`<${Time} at=${key.expire_time} />`)}
      ${report.key && fact("Limits", [limits.join(", ") || "none", ...(report.key.warnings?.length ? ["not enforced at present"] : [])].join(", "))}
      ${report.key && fact("Made", html`<${Time} at=${key.create_time} />`)}
      ${fact("Requests, 30 days", count(report.chart.total))}</dl>
      ${report.chart.total > 0 && html`<${UsageChart} data=${report.chart} height=${180} label="Requests by day" /><${Legend} data=${report.chart} />`}
      <p class="muted small">An address that isn't yours means that somebody else uses the key: revoke it.</p></div></section>`;
}

/** Sentence that says whether the key works, in the words of the console. */
function ownSentence(key) {
  return sentence({ ...key, status: "KEY_STATUS_ACTIVE", ip_restriction: { allowed_cidrs: key.allowed_cidrs ?? [] } });
}

function Revoke({ secret, onClose }) {
  const [reason, setReason] = useState(REASONS[0][0]);
  const { run, busy, problem } = useAction(async () => {
    await call("revokeApiKey", { body: { credential: secret, reason } });
    onClose(true);
  });
  return html`<${Dialog} title="Revoke this key" onClose=${() => onClose(false)} foot=${html`<button type="button" class="button" onClick=${() => onClose(false)}>Cancel</button>
      <button form="revoke" class="button danger fill" disabled=${busy}>${busy ? "Revoking" : "Revoke for good"}</button>`}>
    <form id="revoke" class="stack" onSubmit=${run}><p>This can't be taken back. Everything that uses the key is refused within seconds.</p>
      <${Field} id="why" label="Reason">${(props) => html`<select class="input" ...${props} value=${reason} onChange=${(event) => setReason(event.target.value)}>${REASONS.map(([value, label]) => html`<option value=${value} selected=${value === reason}>${label}</option>`)}</select>`}<//></form>
    ${problem && html`<${Refused} problem=${problem} />`}<//>`;
}

const place = document.getElementById("app");
place.replaceChildren();
render(html`<${App} />`, place);
