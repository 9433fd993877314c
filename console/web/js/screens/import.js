// The form that imports a key that was made elsewhere, or a hash of it.

import { Problem, call } from "../api.js";
import { cli, curl } from "../commands.js";
import { TTLS, TokenField, metadataProblem, scopeProblem } from "../fields.js";
import { html, useAction, useLoad, useState } from "../html.js";
import { Demands, loadPolicies } from "../policies.js";
import { keyLink } from "../router.js";
import { useGuard, useRepeatable } from "../sending.js";
import { may } from "../session.js";
import { Choices, Commands, Failure, Field, Notice, shown } from "../ui.js";

const EMPTY = { name: "", actor: "", kind: "raw", text: "", scopes: [], ttl: "", metadata: "" };
const DIGESTS = [
  { value: "sha256", label: "SHA-256 digest" },
  { value: "sha512", label: "SHA-512 digest" },
];

/** Returns the request of a form. */
export function requestOf(form) {
  const body = { name: form.name.trim(), actor_id: form.actor.trim() };
  if (form.kind === "raw") body.raw_key = form.text;
  else body.hash = { algorithm: form.kind, value: form.text.trim() };
  if (form.scopes.length) body.scopes = form.scopes;
  if (form.ttl) body.ttl = form.ttl;
  if (form.metadata.trim() && !metadataProblem(form.metadata)) body.metadata = JSON.parse(form.metadata);
  return body;
}

function problemsOf(form) {
  const problems = {};
  if (!form.name.trim()) problems.name = "A name is needed.";
  if (!form.actor.trim()) problems.actor = "An actor is needed.";
  if (!form.text.trim()) problems.text = form.kind === "raw" ? "The key is needed." : "The digest is needed.";
  if (form.scopes.some(scopeProblem)) problems.scopes = "One of the scopes can't be.";
  if (metadataProblem(form.metadata)) problems.metadata = `Metadata ${metadataProblem(form.metadata)}`;
  return problems;
}

export function Import() {
  const [form, setForm] = useState(EMPTY);
  const [tried, setTried] = useState(false);
  const repeatable = useRepeatable();
  const action = useAction(async () => {
    const key = await call("adminImportApiKey", { body: repeatable.bodyOf(form, requestOf) });
    // The key itself isn't needed any more.
    repeatable.forget();
    setForm(EMPTY);
    setTried(false);
    return key;
  });
  useGuard(action.busy ? "The key is being imported. Leave before the answer is there?" : "");
  const policies = useLoad(loadPolicies, []);
  if (!may("adminImportApiKey")) return html`<div class="page"><h1>Import a key</h1><${Notice} title="Your role can't import keys"><p>It takes the role issuer: serve.http.auth.roles gives it.</p><//></div>`;
  const set = (changes) => setForm({ ...form, ...changes });
  const input = (name) => (event) => set({ [name]: event.target.value });
  const problems = problemsOf(form);
  const server = (name) => (action.problem instanceof Problem ? SERVER_NAMES[name].map((field) => action.problem.at(field)).find(Boolean) ?? "" : "");
  const wrong = (name) => (tried ? problems[name] : "") || shown(server(name));
  const body = requestOf(form);
  const submit = (event) => {
    event.preventDefault();
    setTried(true);
    if (Object.keys(problems).length) {
      document.getElementById(Object.keys(problems)[0])?.focus();
      return;
    }
    action.run();
  };
  return html`<div class="page">
    <div class="head"><div><h1>Import a key</h1><p>A key that was made elsewhere works at Envoy as it is; only a hash of it is stored. Many at once: talos migrate from.</p></div></div>
    ${action.answer && html`<${Notice} tone="good" title=${`${shown(action.answer.name)} is imported`}><p><a href=${keyLink(action.answer.key_id)}>Look at it</a>, or import another.</p><//>`}
    <form class="columns" onSubmit=${submit} novalidate>
      <div class="stack">
        <section class="card"><header><h2>Whose it is</h2></header><div class="card-body stack">
          <${Field} id="name" label="Name" hint="For people: what the key is for" wrong=${wrong("name")}>${(props) => html`<input class="input" ...${props} maxlength="255" autocomplete="off" autofocus value=${form.name} onInput=${input("name")} />`}<//>
          <${Field} id="actor" label="Actor" hint="On whose behalf it acts, such as user:42" wrong=${wrong("actor")}>${(props) => html`<input class="input" ...${props} maxlength="255" autocomplete="off" spellcheck=${false} value=${form.actor} onInput=${input("actor")} />`}<//>
        </div></section>
        <section class="card"><header><h2>The key</h2></header><div class="card-body stack">
          <${Choices} name="kind" legend="What is known of it" options=${[{ value: "raw", label: "The key itself" }, ...DIGESTS]} value=${form.kind} onChange=${(kind) => set({ kind, text: "" })} />
          <${Field} id="text" label=${form.kind === "raw" ? "Key" : "Digest"} hint=${form.kind === "raw" ? "Sent once, never stored or logged" : "In hex or base64. Slow hashes (bcrypt, argon2) can't be imported."} wrong=${wrong("text")}>${(props) => html`<input class="input mono" type=${form.kind === "raw" ? "password" : "text"} autocomplete="off" spellcheck=${false} ...${props} value=${form.text} onInput=${input("text")} />`}<//>
        </div></section>
        <section class="card"><header><h2>What it may do</h2></header><div class="card-body stack">
          <${TokenField} id="scopes" label="Scopes" hint="Enter, comma or space ends one" items=${form.scopes} onChange=${(scopes) => set({ scopes })} check=${scopeProblem} placeholder="orders:read" />
          <${Choices} name="ttl" legend="Ends after" options=${[{ value: "", label: "The server's default" }, ...TTLS]} value=${form.ttl} onChange=${(ttl) => set({ ttl })} />
          <${Field} id="metadata" label="Metadata" hint="A JSON object of your own. Upstreams may receive it." wrong=${wrong("metadata")}>${(props) => html`<textarea class="input mono" ...${props} rows="3" spellcheck=${false} value=${form.metadata} onInput=${input("metadata")}></textarea>`}<//>
        </div></section>
        ${action.problem && html`<${Failure} problem=${action.problem} />`}
        <div class="actions"><button class="button primary" type="submit" disabled=${action.busy}>${action.busy ? "Importing" : "Import the key"}</button><a class="button quiet" href="#/keys/imported">Cancel</a></div>
      </div>
      <div class="stack"><${Demands} of=${policies.data} body=${body} />
        <section class="card"><header><h2>What will be sent</h2></header><div class="card-body stack"><${Commands} forms=${{ talos: cli.importKey(body), curl: form.kind === "raw" ? "" : curl("adminImportApiKey", { body }) }} open /></div></section></div>
    </form>
  </div>`;
}

const SERVER_NAMES = { name: ["name"], actor: ["actor_id"], text: ["raw_key", "hash"], metadata: ["metadata"] };
