// Changes of a key's or an actor's fields: only those that differ are sent.

import { call } from "../api.js";
import { cli, curl } from "../commands.js";
import { LimitField, LimitsField, TokenField, addressProblem, limitsProblem, metadataProblem, scopeProblem } from "../fields.js";
import { html, useState } from "../html.js";
import { Field, Notice, shown } from "../ui.js";
import { Change, operationOf } from "./change.js";

function formOf(key) {
  const limit = key.rate_limit_policy;
  return {
    name: key.name,
    scopes: key.scopes,
    cidrs: key.ip_restriction?.allowed_cidrs ?? [],
    quota: limit?.quota ?? "",
    window: limit?.window ?? "60s",
    unit: limit?.unit ?? "requests",
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
    set("rate_limit_policy", form.quota ? { quota: form.quota, window: form.window, unit: form.unit } : null);
  }
  if (form.metadata !== before.metadata && !metadataProblem(form.metadata)) set("metadata", form.metadata.trim() ? JSON.parse(form.metadata) : {});
  if (form.end && form.end !== before.end) set("expire_time", `${form.end}T23:59:59Z`);
  return { body, mask: mask.join(",") };
}

export function Edit({ of: current, onClose }) {
  // What the form began with. The key is read again while the dialog is open: compared with that, a
  // field that somebody else has changed meanwhile would look changed here, and be changed back.
  const [key] = useState(current);
  const [form, setForm] = useState(formOf(key));
  const set = (changes) => setForm({ ...form, ...changes });
  const { body, mask } = changesOf(key, form);
  const name = operationOf("Update", key);
  const options = { path: { id: key.key_id }, query: { update_mask: mask }, body };
  const endProblem = key.expire_time && !form.end ? "An end can be moved, but not taken away." : "";
  const isWrong = endProblem || !form.name.trim() || form.scopes.some(scopeProblem) || form.cidrs.some(addressProblem) || metadataProblem(form.metadata);
  return html`<${Change} title=${`Edit ${shown(key.name)}`} verb="Save" disabled=${!mask || Boolean(isWrong)} run=${() => call(name, options)} onClose=${onClose}
    done="Saved; it counts everywhere within seconds" forms=${{ talos: cli.update(key.key_id, body), curl: curl(name, options) }}>
    ${!same(formOf(current), formOf(key)) && html`<${Notice} tone="warn" title="The key was changed meanwhile"><p>Fields that you change replace what they have by now; the others stay. Open this again to see them.</p><//>`}
    <${Field} id="edit-name" label="Name">${(props) => html`<input class="input" ...${props} maxlength="255" autofocus value=${form.name} onInput=${(event) => set({ name: event.target.value })} />`}<//>
    <${TokenField} id="edit-scopes" label="Scopes" items=${form.scopes} onChange=${(scopes) => set({ scopes })} check=${scopeProblem} />
    <${TokenField} id="edit-cidrs" label="Addresses" hint="Empty allows all" items=${form.cidrs} onChange=${(cidrs) => set({ cidrs })} check=${addressProblem} placeholder="any address" />
    <${LimitField} quota=${form.quota} window=${form.window} unit=${form.unit} onChange=${set} />
    <${Field} id="edit-end" label="Last day (UTC)" hint=${key.expire_time ? "A later day prolongs the key" : "The key has no end; a day gives it one"} wrong=${endProblem}>${(props) => html`<input class="input" type="date" ...${props} value=${form.end} onInput=${(event) => set({ end: event.target.value })} />`}<//>
    <${MetadataField} value=${form.metadata} onChange=${(metadata) => set({ metadata })} />
  <//>`;
}

function MetadataField({ value, onChange }) {
  const wrong = metadataProblem(value) && `Metadata ${metadataProblem(value)}`;
  return html`<${Field} id="edit-metadata" label="Metadata" wrong=${wrong}>${(props) => html`<textarea class="input mono" ...${props} rows="3" spellcheck=${false} value=${value} onInput=${(event) => onChange(event.target.value)}></textarea>`}<//>`;
}

/** Limits that an actor may have. */
const MOST_LIMITS = 8;

const sentLimit = ({ name, quota, window, enforce }) => ({ name, quota, window, unit: "requests", ...(enforce && { enforce }) });

export function EditActor({ id, of: actor, onClose }) {
  const [before] = useState({ name: actor.display_name ?? "", metadata: actor.metadata ? JSON.stringify(actor.metadata, null, 2) : "", limits: actor.rate_limit_policies ?? [] });
  const [form, setForm] = useState(before);
  const set = (changes) => setForm({ ...form, ...changes });
  const body = {
    ...(form.name !== before.name && { display_name: form.name.trim() }),
    ...(form.metadata !== before.metadata && !metadataProblem(form.metadata) && { metadata: form.metadata.trim() ? JSON.parse(form.metadata) : {} }),
    ...(!same(form.limits, before.limits) && { rate_limit_policies: form.limits.map(sentLimit) }),
  };
  const mask = Object.keys(body).join(",");
  const options = { path: { id }, query: { update_mask: mask }, body };
  const isWrong = Boolean(metadataProblem(form.metadata) || limitsProblem(form.limits));
  return html`<${Change} title=${`Edit ${shown(id)}`} verb="Save" disabled=${!mask || isWrong} run=${() => call("adminUpdateActor", options)} onClose=${onClose}
    done="Saved; it counts everywhere within seconds" forms=${{ talos: cli.updateActor(id, body), curl: curl("adminUpdateActor", options) }}>
    <${Field} id="edit-actor" label="Name, for people" hint="Empty for none">${(props) => html`<input class="input" ...${props} maxlength="255" autofocus value=${form.name} onInput=${(event) => set({ name: event.target.value })} />`}<//>
    <${LimitsField} limits=${form.limits} most=${MOST_LIMITS} onChange=${(limits) => set({ limits })} />
    <${MetadataField} value=${form.metadata} onChange=${(metadata) => set({ metadata })} />
  <//>`;
}
