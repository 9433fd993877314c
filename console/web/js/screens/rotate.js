// Rotation: a new key beside the old one, until the old one is unused.

import { call } from "../api.js";
import { cli, curl } from "../commands.js";
import { TTLS } from "../fields.js";
import { html, useAction, useEvery, useLoad, useState } from "../html.js";
import { isActive, isImported } from "../keystate.js";
import { go, keyLink } from "../router.js";
import { useGuard, useRepeatable } from "../sending.js";
import { may } from "../session.js";
import { Choices, Commands, Failure, Loaded, Notice, shown } from "../ui.js";
import { Finish } from "./change.js";
import { OldKey, getKey } from "./key.js";
import { Secret } from "./secret.js";

const ENDS = [
  { value: "unused", label: "When it is unused", note: "A day after its last use; at most a year" },
  { value: "now", label: "Now", note: "What still uses it is refused within seconds" },
  { value: "1h", label: "In 1 hour", note: "Both keys work for an hour" },
  { value: "24h", label: "In 24 hours", note: "Both keys work for a day" },
];

const BODIES = { unused: { until_unused: "24h" }, now: {}, "1h": { grace_period: "1h" }, "24h": { grace_period: "24h" } };

export function Rotate({ id }) {
  const loaded = useLoad((signal) => getKey(id, signal), [id]);
  if (!may("adminRotateIssuedApiKey")) return html`<div class="page"><h1>Rotate a key</h1><${Notice} title="Your role can't rotate keys"><p>It takes the role issuer: serve.http.auth.roles gives it.</p><//></div>`;
  return html`<div class="page"><${Loaded} of=${loaded} what="the key">${(key) => html`<${RotateForm} of=${key} />`}<//></div>`;
}

function RotateForm({ of: key }) {
  const [end, setEnd] = useState("unused");
  const [ttl, setTtl] = useState("");
  const body = { ...BODIES[end], ...(ttl && { ttl }) };
  const path = { id: key.key_id };
  const repeatable = useRepeatable();
  const { run, busy, problem, answer } = useAction(() => call("adminRotateIssuedApiKey", { path, body: repeatable.bodyOf(body, () => body) }));
  useGuard(busy ? "The key is being rotated, and only the answer has the new secret. Leave without it?" : "");
  if (answer) return html`<${Rotated} answer=${answer} />`;
  if (key.replaced_by) return html`<h1>Rotate ${shown(key.name)}</h1><${Notice} title="Another key replaces it already"><p><a href=${keyLink(key.replaced_by, "rotate")}>Rotate the new one</a> instead.</p><//>`;
  if (isImported(key) || !isActive(key)) {
    return html`<h1>Rotate ${shown(key.name)}</h1><${Notice} title=${isImported(key) ? "Imported keys can't be rotated" : "Only active keys can be rotated"}><p><a href=${keyLink(key.key_id)}>Look at the key</a>, or <a href="#/issue">issue another one</a>.</p><//>`;
  }
  return html`
    <div class="head"><div><p class="crumbs"><a href="#/keys/issued">Keys</a><span aria-hidden="true">/</span><a href=${keyLink(key.key_id)}>${shown(key.name)}</a><span aria-hidden="true">/</span></p>
      <h1>Rotate ${shown(key.name)}</h1><p>A new key with a new secret takes over: same actor, scopes, addresses and limits.</p></div></div>
    <form class="card" onSubmit=${run}><div class="card-body stack">
      <${Choices} name="end" legend="When the old key ends" options=${ENDS} value=${end} onChange=${setEnd} tall />
      <${Choices} name="ttl" legend="How long the new key lives" options=${[{ value: "", label: key.expire_time ? "As the old one" : "Without an end, as the old one" }, ...TTLS.slice(3)]} value=${ttl} onChange=${setTtl} />
      ${problem && html`<${Failure} problem=${problem} />`}
      <div class="actions"><button class="button primary" type="submit" disabled=${busy}>${busy ? "Rotating" : "Rotate"}</button><a class="button quiet" href=${keyLink(key.key_id)}>Cancel</a></div>
      <${Commands} forms=${{ talos: cli.rotate(key.key_id, body), curl: curl("adminRotateIssuedApiKey", { path, body }) }} />
    </div></form>`;
}

function Rotated({ answer }) {
  const [key, old] = [answer.issued_api_key, answer.old_issued_api_key];
  return html`<div class="head"><div><h1>${shown(key.name)} is rotated</h1><p>Give the new secret to whatever uses the old one.</p></div></div>
    <${Secret} secret=${answer.secret} of=${key} done=${() => go(keyLink(key.key_id))}><${Old} id=${old.key_id} /><//>`;
}

/** The old key, read again every few seconds, so that one sees when nothing uses it any more. */
function Old({ id }) {
  const [ending, setEnding] = useState(false);
  const loaded = useLoad(async (signal) => {
    const query = { filter: `key_id = ${id}`, group_by: "key" };
    const [key, usage] = await Promise.all([getKey(id, signal), call("adminGetUsage", { query, signal })]);
    return { key, used: usage.rows[0] ?? {} };
  }, [id]);
  useEvery(5000, () => loaded.refresh());
  return html`<${Loaded} of=${loaded} what="the old key">${({ key, used }) => (isActive(key)
    ? html`<${OldKey} of=${key} used=${used} finish=${() => setEnding(true)} />`
    : html`<${Notice} title="The old key has ended"><p>Only the new one works. <a href=${keyLink(id)}>Look at the old one</a></p><//>`)}<//>
    ${ending && html`<${Finish} of=${loaded.data.key} onClose=${(done) => {
      setEnding(false);
      if (done) loaded.reload();
    }} />`}`;
}
