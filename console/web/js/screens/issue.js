// The form that issues a key.

import { Problem, call } from "../api.js";
import { cli, curl } from "../commands.js";
import { CreditsField, LimitField, TTLS, TokenField, addressProblem, creditsOf, creditsProblem, metadataProblem, scopeProblem } from "../fields.js";
import { html, useAction, useLoad, useState } from "../html.js";
import { listKeys } from "../listing.js";
import { Demands, demandedScopes, loadPolicies } from "../policies.js";
import { go, keyLink } from "../router.js";
import { useGuard, useRepeatable } from "../sending.js";
import { may } from "../session.js";
import { exactTime, relativeTime } from "../time.js";
import { Choices, Commands, Failure, Field, Notice, shown } from "../ui.js";
import { Secret } from "./secret.js";

/** Scopes and actors of the newest keys, the most frequent first. */
export async function inUse(signal) {
  const { keys } = await listKeys("issued", { state: "", actor: "", q: "", scope: "", concern: "", sort: "" }, "", signal);
  const ranked = (lists) => {
    const numbers = new Map();
    for (const item of lists.flat()) numbers.set(item, (numbers.get(item) ?? 0) + 1);
    return [...numbers].sort((one, other) => other[1] - one[1]).map(([item]) => item);
  };
  return { scopes: ranked(keys.map((key) => key.scopes)), actors: ranked(keys.map((key) => [key.actor_id])) };
}

const EMPTY = { name: "", actor: "", role: "", scopes: [], credits: "", refill: "", ttl: "2160h", end: "", cidrs: [], quota: "", window: "60s", visibility: "KEY_VISIBILITY_SECRET", metadata: "" };

/** Returns the request of a form, without what is unset. */
export function requestOf(form, now = Date.now()) {
  const body = { name: form.name.trim(), actor_id: form.actor.trim() };
  if (form.role) body.role = form.role;
  else if (form.scopes.length) body.scopes = form.scopes;
  if (form.ttl === "date") {
    // The day counts to its end.
    const seconds = Math.floor((new Date(`${form.end}T23:59:59Z`).getTime() - now) / 1000);
    if (seconds > 0) body.ttl = `${seconds}s`;
  } else if (form.ttl) body.ttl = form.ttl;
  if (form.cidrs.length) body.ip_restriction = { allowed_cidrs: form.cidrs };
  if (form.quota) body.rate_limit_policy = { quota: form.quota, window: form.window, unit: "requests" };
  const credits = creditsOf(form);
  if (credits) body.credits = credits;
  if (form.visibility !== "KEY_VISIBILITY_SECRET") body.visibility = form.visibility;
  if (form.metadata.trim() && !metadataProblem(form.metadata)) body.metadata = JSON.parse(form.metadata);
  return body;
}

/** Problems of the form, by field. */
function problemsOf(form) {
  const problems = {};
  if (!form.name.trim()) problems.name = "A name is needed.";
  if (!form.actor.trim()) problems.actor = "An actor is needed.";
  if (form.ttl === "date" && !(new Date(`${form.end}T23:59:59Z`).getTime() > Date.now())) problems.end = "Choose a day from today on.";
  if (!form.role && form.scopes.some(scopeProblem)) problems.scopes = "One of the scopes can't be.";
  if (form.cidrs.some(addressProblem)) problems.cidrs = "One of the addresses can't be.";
  if (form.quota && !/^[1-9]\d*$/.test(form.quota)) problems.quota = "Must be a whole number.";
  if (creditsProblem(form.credits, form.refill)) problems.credits = creditsProblem(form.credits, form.refill);
  if (metadataProblem(form.metadata)) problems.metadata = `Metadata ${metadataProblem(form.metadata)}`;
  return problems;
}

export function Issue({ query }) {
  const [form, setForm] = useState({ ...EMPTY, actor: query.get("actor") ?? "" });
  const [tried, setTried] = useState(false);
  const repeatable = useRepeatable();
  const { run, busy, problem, answer } = useAction(() => call("adminIssueApiKey", { body: repeatable.bodyOf(form, requestOf) }));
  useGuard(busy ? "The key is being issued, and only the answer has its secret. Leave without it?" : "");
  const known = useLoad(inUse, []);
  const policies = useLoad(loadPolicies, []);
  if (!may("adminIssueApiKey")) return html`<div class="page"><h1>Issue a key</h1><${Notice} title="Your role can't issue keys"><p>It takes the role issuer: serve.http.auth.roles gives it.</p><//></div>`;
  if (answer) return html`<${Issued} answer=${answer} />`;
  const set = (changes) => setForm({ ...form, ...changes });
  const input = (name) => (event) => set({ [name]: event.target.value });
  const problems = problemsOf(form);
  const wrong = (name) => (tried ? problems[name] : "") || (problem instanceof Problem ? shown(problem.at(SERVER_NAMES[name])) : "");
  const body = requestOf(form);
  const roles = policies.data?.roles ?? {};
  const suggested = [...new Set([...demandedScopes(policies.data, body), ...(known.data?.scopes ?? [])])];
  const submit = (event) => {
    event.preventDefault();
    setTried(true);
    if (Object.keys(problems).length) {
      document.getElementById(Object.keys(problems)[0])?.focus();
      return;
    }
    run();
  };
  return html`<div class="page">
    <div class="head"><div><h1>Issue a key</h1><p>It works at Envoy as soon as it is issued. The secret is shown once.</p></div></div>
    <form class="columns" onSubmit=${submit} novalidate>
      <div class="stack">
        <section class="card"><header><h2>Whose it is</h2></header><div class="card-body stack">
          <${Field} id="name" label="Name" hint="For people: what the key is for" wrong=${wrong("name")}>${(props) => html`<input class="input" ...${props} maxlength="255" autocomplete="off" autofocus value=${form.name} onInput=${input("name")} />`}<//>
          <${Field} id="actor" label="Actor" hint="On whose behalf it acts, such as user:42 or svc:billing. Suspending the actor stops all its keys." wrong=${wrong("actor")}>${(props) => html`<input class="input" ...${props} maxlength="255" list="actors" autocomplete="off" spellcheck=${false} value=${form.actor} onInput=${input("actor")} />`}<//>
          <datalist id="actors">${(known.data?.actors ?? []).slice(0, 50).map((actor) => html`<option value=${actor} />`)}</datalist>
        </div></section>
        <section class="card"><header><h2>What it may do</h2></header><div class="card-body stack">
          ${Object.keys(roles).length > 0 && html`<${Field} id="role" label="Named set of scopes" hint=${form.role ? `Gives it ${roles[form.role].map(shown).join(", ") || "no scopes"}` : "A set of the configuration, in place of single scopes"} wrong=${wrong("role")}>${(props) => html`<select class="input" ...${props} value=${form.role} onChange=${input("role")}>
            <option value="" selected=${form.role === ""}>none: scopes below</option>${Object.keys(roles).map((name) => html`<option value=${name} selected=${name === form.role}>${shown(name)}</option>`)}</select>`}<//>`}
          ${!form.role && html`<${TokenField} id="scopes" label="Scopes" hint="Enter, comma or space ends one. Without scopes it only passes routes that need none." items=${form.scopes} onChange=${(scopes) => set({ scopes })}
            check=${scopeProblem} suggestions=${suggested} placeholder="orders:read" />`}
          <${TokenField} id="cidrs" label="Addresses" hint="Addresses or blocks such as 10.0.0.0/8. Empty allows all." items=${form.cidrs} onChange=${(cidrs) => set({ cidrs })} check=${addressProblem} placeholder="any address" />
          <${LimitField} quota=${form.quota} window=${form.window} onChange=${set} />
          <${CreditsField} credits=${form.credits} refill=${form.refill} onChange=${set} />
        </div></section>
        <section class="card"><header><h2>How long</h2></header><div class="card-body stack">
          <${Choices} name="ttl" legend="Ends after" options=${[...TTLS, { value: "", label: "The server's default" }, { value: "date", label: "A day" }]} value=${form.ttl} onChange=${(ttl) => set({ ttl })} />
          ${form.ttl === "date" && html`<${Field} id="end" label="Last day (UTC)" wrong=${wrong("end")}>${(props) => html`<input class="input" type="date" ...${props} value=${form.end} onInput=${input("end")} />`}<//>`}
          <p class="muted small">${endWords(body)}</p>
        </div></section>
        <section class="card"><header><h2>More</h2></header><div class="card-body stack">
          <${Choices} name="visibility" legend="Who may see it" value=${form.visibility} onChange=${(visibility) => set({ visibility })} tall options=${[
            { value: "KEY_VISIBILITY_SECRET", label: "Secret", note: "Servers only; the usual kind" },
            { value: "KEY_VISIBILITY_PUBLIC", label: "Publishable", note: "May stand in web pages and apps; only for routes that take such keys" },
          ]} />
          <${Field} id="metadata" label="Metadata" hint=${'A JSON object of your own, such as {"team": "blue"}. Upstreams may receive it.'} wrong=${problems.metadata || wrong("metadata")}>${(props) => html`<textarea class="input mono" ...${props} rows="3" spellcheck=${false} value=${form.metadata} onInput=${input("metadata")}></textarea>`}<//>
        </div></section>
        ${problem && html`<${Failure} problem=${problem} />`}
        <div class="actions"><button class="button primary" type="submit" disabled=${busy}>${busy ? "Issuing" : "Issue the key"}</button><a class="button quiet" href="#/keys/issued">Cancel</a></div>
      </div>
      <div class="stack"><${Demands} of=${policies.data} body=${body} /><${Preview} body=${body} /></div>
    </form>
  </div>`;
}

const SERVER_NAMES = { name: "name", actor: "actor_id", role: "role", end: "ttl", metadata: "metadata" };

function endWords(body) {
  if (!body.ttl) return "The server's default counts: credentials.api_keys.default_ttl.";
  const seconds = Number.parseInt(body.ttl, 10) * (body.ttl.endsWith("h") ? 3600 : 1);
  const end = new Date(Date.now() + seconds * 1000).toISOString();
  return `It ends ${relativeTime(end)}, at ${exactTime(end)}.`;
}

function Preview({ body }) {
  return html`<section class="card"><header><h2>What will be sent</h2></header><div class="card-body stack">
    <${Commands} forms=${{ talos: cli.issue(body), curl: curl("adminIssueApiKey", { body }) }} open />
  </div></section>`;
}

function Issued({ answer }) {
  const key = answer.issued_api_key;
  return html`<div class="page"><div class="head"><div><h1>${shown(key.name)} is issued</h1><p>For ${shown(key.actor_id)}. It works from now on.</p></div></div>
    ${(key.warnings ?? []).map((warning) => html`<${Notice} tone="warn" title=${shown(warning)} />`)}
    ${answer.secret ? html`<${Secret} secret=${answer.secret} of=${key} done=${() => go(keyLink(key.key_id))} />` : html`<${Notice} tone="warn" title="The secret isn't shown again"><p>An earlier request issued this key, too long ago, or the key was used since. If nobody has its secret, <a href=${keyLink(key.key_id, "rotate")}>rotate it</a> for a new one.</p><//>`}
  </div>`;
}
