// Explanation of a request that isn't sent: the decision that Envoy would get, its rule, and its reason.

import { call } from "../api.js";
import { cli, curl } from "../commands.js";
import { html, useAction, useState } from "../html.js";
import { Icon } from "../icons.js";
import { outcomeWords } from "../keystate.js";
import { keyLink, link } from "../router.js";
import { Commands, Failure, Field, Notice, Tags, shown } from "../ui.js";

const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

export function Routes({ query }) {
  const [form, setForm] = useState({ method: "GET", host: query.get("host") ?? "", path: query.get("path") ?? "/", client: "", credential: "" });
  const set = (name) => (event) => setForm({ ...form, [name]: event.target.value });
  const client = form.client.trim();
  const body = { method: form.method, host: form.host.trim() || "example.com", path: form.path.trim() || "/", ...(client && { client_address: client }) };
  const credential = form.credential.trim();
  const { run, busy, problem, answer } = useAction(() => call("adminExplainRoute", { body: { ...body, ...(credential && { credential }) } }));
  return html`<div class="page">
    <div class="head"><div><h1>Routes</h1><p>Try a request without sending it: the decision, the rule that matched, and why. Nothing is charged.</p></div></div>
    <form class="card" onSubmit=${run} autocomplete="off"><div class="card-body stack">
      <div class="row"><${Field} id="method" label="Method">${(props) => html`<select class="input" ...${props} value=${form.method} onChange=${set("method")}>${METHODS.map((one) => html`<option selected=${one === form.method}>${one}</option>`)}</select>`}<//>
        <${Field} id="host" label="Host">${(props) => html`<input class="input" ...${props} value=${form.host} placeholder="example.com" spellcheck=${false} onInput=${set("host")} />`}<//>
        <${Field} id="path" label="Path">${(props) => html`<input class="input mono" ...${props} value=${form.path} spellcheck=${false} onInput=${set("path")} />`}<//></div>
      <div class="row"><${Field} id="route-credential" label="Key" hint="Optional; forgotten with this page">${(props) => html`<input class="input mono" type="password" ...${props} value=${form.credential} autocomplete="off" onInput=${set("credential")} />`}<//>
        <${Field} id="route-client" label="Client address" hint="Optional; a key with an address list needs one">${(props) => html`<input class="input mono" ...${props} value=${form.client} placeholder="192.0.2.7" spellcheck=${false} onInput=${set("client")} />`}<//></div>
      <div class="actions"><button class="button primary" disabled=${busy}><${Icon} name="route" />${busy ? "Asking" : "Explain"}</button></div>
      <${Commands} forms=${{ talos: cli.explain(body, credential !== ""), curl: curl("adminExplainRoute", { body }) }} />
    </div></form>
    ${problem && html`<${Failure} problem=${problem} />`}
    ${answer && html`<${Explained} of=${answer} />`}
  </div>`;
}

function Explained({ of: answer }) {
  const allowed = answer.decision === "allow";
  const demand = answer.demand ?? {};
  const [all, any] = [demand.scopes ?? [], demand.any_scope ?? []];
  const scopes = [...all, ...any];
  const { rule } = answer;
  return html`<${Notice} tone=${allowed ? "good" : "bad"} title=${allowed ? "It would pass" : "It would be refused"}><p>${shown(answer.message ?? outcomeWords(answer.reason ?? ""))}</p><//>
    <section class="card" aria-label="Why"><header><h2>Why</h2></header><div class="card-body"><dl class="facts wide">
      <div><dt>Reason</dt><dd class="mono">${shown(answer.reason ?? "")}</dd></div>
      <div><dt>Rule</dt><dd>${rule ? html`<b>${shown(rule.name ?? `number ${rule.index + 1}`)}</b><div class="mono small">${shown([rule.methods?.join(" "), rule.host, rule.path].filter(Boolean).join(" "))}</div>` : "none of authz.routes matches; the defaults count"}</dd></div>
      ${demand.mode && html`<div><dt>A key is</dt><dd>${{ required: "required", optional: "optional: requests without one pass", off: "not looked at" }[demand.mode]}${demand.visibility === "secret" ? ", secret ones only" : ""}</dd></div>`}
      <div><dt>${any.length ? "Scopes, all and one of" : "Scopes it asks for"}</dt><dd><${Tags} items=${scopes} most=${10} /></dd></div>
      ${demand.cost > 1 && html`<div><dt>Counts as</dt><dd>${demand.cost} requests</dd></div>`}
      ${answer.missing_scopes?.length > 0 && html`<div><dt>Scopes that are missing</dt><dd><${Tags} items=${answer.missing_scopes} most=${10} /></dd></div>`}
      ${answer.key_id && html`<div><dt>Key</dt><dd><a class="mono" href=${keyLink(answer.key_id)}>${answer.key_id}</a></dd></div>`}
      ${answer.actor_id && html`<div><dt>Actor</dt><dd><a href=${link(["actors", answer.actor_id])}>${shown(answer.actor_id)}</a></dd></div>`}
    </dl></div>${scopes.length > 0 && html`<footer>Which keys would pass: ${scopes.map((scope, index) => html`${index > 0 ? ", " : ""}<a href=${link(["keys", "issued"], { scope, state: "active" })}>active keys with ${shown(scope)}</a>`)}${all.length > 1 ? "; they need all of them" : ""}</footer>`}</section>`;
}
