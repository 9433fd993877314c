// Changes of a key's fields: only those that differ are sent.

import { call } from "../api.js";
import { cli, curl } from "../commands.js";
import { LimitField, TokenField, addressProblem, metadataProblem, scopeProblem } from "../fields.js";
import { html, useState } from "../html.js";
import { Field, shown } from "../ui.js";
import { Change, operationOf } from "./change.js";

function formOf(key) {
  const limit = key.rate_limit_policy;
  return {
    name: key.name,
    scopes: key.scopes,
    cidrs: key.ip_restriction?.allowed_cidrs ?? [],
    quota: limit?.quota ?? "",
    window: limit?.window ?? "60s",
    metadata: key.metadata ? JSON.stringify(key.metadata, null, 2) : "",
    end: key.expire_time?.slice(0, 10) ?? "",
  };
}

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

/** Returns the body and the mask of what differs. */
export function changesOf(key, form) {
  const before = formOf(key);
  const body = {};
  const mask = [];
  const set = (name, value) => {
    body[name] = value;
    mask.push(name);
  };
  if (form.name !== before.name) set("name", form.name.trim());
  if (!same(form.scopes, before.scopes)) set("scopes", form.scopes);
  if (!same(form.cidrs, before.cidrs)) set("ip_restriction", { allowed_cidrs: form.cidrs });
  if (form.quota !== before.quota || (form.quota && form.window !== before.window)) {
    set("rate_limit_policy", form.quota ? { quota: form.quota, window: form.window, unit: "requests" } : null);
  }
  if (form.metadata !== before.metadata && !metadataProblem(form.metadata)) set("metadata", form.metadata.trim() ? JSON.parse(form.metadata) : {});
  if (form.end && form.end !== before.end) set("expire_time", `${form.end}T23:59:59Z`);
  return { body, mask: mask.join(",") };
}

export function Edit({ of: key, onClose }) {
  const [form, setForm] = useState(formOf(key));
  const set = (changes) => setForm({ ...form, ...changes });
  const { body, mask } = changesOf(key, form);
  const name = operationOf("Update", key);
  const options = { path: { id: key.key_id }, query: { update_mask: mask }, body };
  const isWrong = !form.name.trim() || form.scopes.some(scopeProblem) || form.cidrs.some(addressProblem) || metadataProblem(form.metadata);
  return html`<${Change} title=${`Edit ${shown(key.name)}`} verb="Save" disabled=${!mask || Boolean(isWrong)} run=${() => call(name, options)} onClose=${onClose}
    done="Saved; it counts everywhere within seconds" forms=${{ talos: cli.update(key.key_id, body, ""), curl: curl(name, options) }}>
    <${Field} id="edit-name" label="Name">${(props) => html`<input class="input" ...${props} maxlength="255" autofocus value=${form.name} onInput=${(event) => set({ name: event.target.value })} />`}<//>
    <${TokenField} id="edit-scopes" label="Scopes" items=${form.scopes} onChange=${(scopes) => set({ scopes })} check=${scopeProblem} />
    <${TokenField} id="edit-cidrs" label="Addresses" hint="Empty allows all" items=${form.cidrs} onChange=${(cidrs) => set({ cidrs })} check=${addressProblem} placeholder="any address" />
    <${LimitField} quota=${form.quota} window=${form.window} onChange=${set} />
    <${Field} id="edit-end" label="Last day (UTC)" hint=${key.expire_time ? "A later day prolongs the key" : "The key has no end; a day gives it one"}>${(props) => html`<input class="input" type="date" ...${props} value=${form.end} onInput=${(event) => set({ end: event.target.value })} />`}<//>
    <${Field} id="edit-metadata" label="Metadata" wrong=${metadataProblem(form.metadata) && `Metadata ${metadataProblem(form.metadata)}`}>${(props) => html`<textarea class="input mono" ...${props} rows="3" spellcheck=${false} value=${form.metadata} onInput=${(event) => set({ metadata: event.target.value })}></textarea>`}<//>
  <//>`;
}
