// One key: state, usage, lineage, time line, and what can be done with it.

import { call, callAll } from "../api.js";
import { buckets, Legend, UsageChart } from "../chart.js";
import { cli, curl } from "../commands.js";
import { html, useEvery, useLoad, useState } from "../html.js";
import { Icon } from "../icons.js";
import { badge, isActive, isImported, limitsOf, sentence, suspensionOf, timeline } from "../keystate.js";
import { keyLink, link } from "../router.js";
import { may } from "../session.js";
import { count, exactTime, windowWords } from "../time.js";
import { Badge, Commands, Empty, Failure, Loaded, Mono, Notice, Tags, Time, shown } from "../ui.js";
import { Finish, Resume, Revoke, Suspend, operationOf } from "./change.js";
import { Edit } from "./edit.js";

/** Ranges of usage that can be chosen. */
export const RANGES = {
  "24h": { label: "24 hours", days: 1, isHour: true },
  "7d": { label: "7 days", days: 7, isHour: true },
  "30d": { label: "30 days", days: 30, isHour: false },
  "1y": { label: "1 year", days: 365, isHour: false },
};

/** Reads usage by time and outcome. */
export async function usageOf(filter, range, signal) {
  const { days, isHour } = RANGES[range];
  const end = new Date();
  const start = new Date(end - days * 86_400_000 + (isHour ? 3_600_000 : 0));
  const query = { filter, group_by: `${isHour ? "hour" : "day"},outcome`, start_time: start.toISOString(), end_time: end.toISOString() };
  const { items } = await callAll("adminGetUsage", { query, member: "rows", most: 20_000, signal });
  return buckets(items, start, end, isHour);
}

const getOperation = (id) => (isImported({ key_id: id }) ? "adminGetImportedApiKey" : "adminGetIssuedApiKey");

export const getKey = (id, signal) => call(getOperation(id), { path: { id }, signal });

/** Returns what stands for a key that can't be read because it was deleted. Other problems go on. */
export const deletedKey = (id) => (problem) => {
  if (problem.status !== 404) throw problem;
  return { key_id: id, name: "deleted", isGone: true };
};

/** Keys before and after one in its chain of rotations; at most six each way. */
async function lineageOf(key, signal) {
  const chain = [key];
  for (const [member, add] of [["replaces", "unshift"], ["replaced_by", "push"]]) {
    let at = key;
    for (let steps = 0; at[member] && steps < 6; steps++) {
      at = await getKey(at[member], signal).catch(deletedKey(at[member]));
      chain[add](at);
    }
  }
  return chain;
}

export function KeyScreen({ id }) {
  const loaded = useLoad((signal) => getKey(id, signal), [id]);
  useEvery(10_000, () => loaded.refresh());
  return html`<div class="page"><${Loaded} of=${loaded} what="the key">${(key) => html`<${Key} of=${key} reload=${loaded.reload} key=${key.key_id} />`}<//></div>`;
}

function Key({ of: key, reload }) {
  const [dialog, setDialog] = useState("");
  const uses = useLoad((signal) => call("adminGetUsage", { query: { filter: `key_id = ${key.key_id}`, group_by: "key", start_time: new Date(Date.now() - 400 * 86_400_000).toISOString() }, signal }), [key.key_id, key.last_used_time]);
  // Unset until it is known: a key whose uses can't be read isn't one that was never used.
  const used = uses.data && (uses.data.rows?.[0] ?? {});
  const close = (done) => {
    setDialog("");
    if (done) reload();
  };
  const { tone } = badge(key);
  const isEnding = Boolean(key.supersede_time) && isActive(key);
  const noticeTone = { good: "good", warn: "warn", bad: "bad", idle: "info" }[tone];
  return html`
    <div class="head"><div><p class="crumbs"><a href=${link(["keys", isImported(key) ? "imported" : "issued"])}>Keys</a><span aria-hidden="true">/</span></p>
      <h1>${shown(key.name)} <${Badge} of=${key} /></h1><p class="small"><${Mono} text=${key.key_id} what="key id" /></p></div>
      <${Actions} of=${key} open=${setDialog} /></div>
    <${Notice} tone=${noticeTone} icon=${!isActive(key) || suspensionOf(key) ? "ban" : isEnding ? "rotate" : "check"} action=${isEnding && may("adminFinishIssuedApiKey") && html`<button class="button small" onClick=${() => setDialog("finish")}>End it now</button>`}>
      <p class="strong" data-sentence>${shown(sentence(key))}</p>${isEnding && html`<${OldWords} of=${key} used=${used} />`}<//>
    ${uses.error && !uses.error.isUnknown && html`<${Failure} problem=${uses.error} retry=${uses.reload} isOld=${used !== undefined} />`}
    ${(key.warnings ?? []).map((warning) => html`<${Notice} tone="warn" title=${shown(warning)} />`)}
    <div class="columns">
      <div class="stack"><${Usage} filter=${`key_id = ${key.key_id}`} /><${Lineage} of=${key} /><${Timeline} of=${key} used=${used} /></div>
      <div class="stack"><${Facts} of=${key} used=${used} /><${Commands} title="Read it on the command line" forms=${{ talos: cli.get(key.key_id), curl: curl(getOperation(key.key_id), { path: { id: key.key_id } }) }} /></div>
    </div>
    ${dialog === "suspend" && html`<${Suspend} of=${key} onClose=${close} />`}
    ${dialog === "resume" && html`<${Resume} of=${key} onClose=${close} />`}
    ${dialog === "revoke" && html`<${Revoke} of=${key} onClose=${close} />`}
    ${dialog === "finish" && html`<${Finish} of=${key} onClose=${close} />`}
    ${dialog === "edit" && html`<${Edit} of=${key} onClose=${close} />`}`;
}

function Actions({ of: key, open }) {
  if (key.status === "KEY_STATUS_REVOKED") return null;
  const canRotate = !isImported(key) && !key.replaced_by && isActive(key) && may("adminRotateIssuedApiKey");
  return html`<div class="actions">
    ${may(operationOf("Update", key)) && html`<button class="button" onClick=${() => open("edit")}><${Icon} name="edit" />Edit</button>`}
    ${canRotate && html`<a class="button" href=${keyLink(key.key_id, "rotate")}><${Icon} name="rotate" />Rotate</a>`}
    ${may(operationOf("Suspend", key)) && (key.suspension
      ? html`<button class="button primary" onClick=${() => open("resume")}><${Icon} name="play" />Resume</button>`
      : html`<button class="button" onClick=${() => open("suspend")}><${Icon} name="pause" />Suspend</button>`)}
    ${may(operationOf("Revoke", key)) && html`<button class="button danger" onClick=${() => open("revoke")}><${Icon} name="ban" />Revoke</button>`}
  </div>`;
}

/** The state of an old key while its successor takes over. */
export function OldKey({ of: key, used, finish }) {
  return html`<${Notice} tone="warn" icon="rotate" title="Another key replaces it"
    action=${may("adminFinishIssuedApiKey") && html`<button class="button small" onClick=${finish}>End it now</button>`}>
    <${OldWords} of=${key} used=${used} /><//>`;
}

function OldWords({ of: key, used }) {
  return html`<p>${used && html`Last used ${used.last_used_time ? html`<${Time} at=${used.last_used_time} />${used.last_used_address ? ` from ${used.last_used_address}` : ""}` : "never"}. `}It ends <${Time} at=${key.supersede_time} /> at the latest.${" "}
    ${key.replaced_by && html`<a href=${keyLink(key.replaced_by)}>The new key</a>`}</p>`;
}

export function Usage({ filter, title = "Usage" }) {
  const [range, setRange] = useState("24h");
  const usage = useLoad((signal) => usageOf(filter, range, signal), [filter, range]);
  useEvery(5000, () => range === "24h" && usage.refresh());
  const query = { filter, group_by: `${RANGES[range].isHour ? "hour" : "day"},outcome` };
  return html`<section class="card" aria-label=${title}><header><h2>${title}</h2>
      <span class="tabs" role="group" aria-label="Range">${Object.entries(RANGES).map(([name, one]) => html`<button aria-pressed=${name === range ? "true" : "false"} onClick=${() => setRange(name)}>${one.label}</button>`)}</span></header>
    <div class="card-body stack"><${Loaded} of=${usage} what="usage">${(data) => (data.total === 0
      ? html`<${Empty} icon="pulse" title="No request in this time"><p>Requests are shown a few seconds after Envoy asked about them.</p><//>`
      : html`<${UsageChart} data=${data} label=${`${title}, ${RANGES[range].label}`} /><${Legend} data=${data} />`)}<//>
      <${Commands} forms=${{ talos: cli.usage(["--filter", filter]), curl: curl("adminGetUsage", { query }) }} /></div></section>`;
}

function Lineage({ of: key }) {
  const chain = useLoad((signal) => lineageOf(key, signal), [key.key_id, key.replaced_by, key.status, key.supersede_time]);
  if (!key.replaces && !key.replaced_by) return null;
  return html`<section class="card" aria-label="Rotations"><header><h2>Rotations</h2></header><div class="card-body">
    <${Loaded} of=${chain} what="the chain">${(keys) => html`<ol class="lineage">${keys.map((one, index) => html`<li>
      ${index > 0 && html`<${Icon} name="arrow" /><span class="visually-hidden">replaced by</span>`}
      ${one.isGone ? html`<span class="node"><b>deleted</b><span class="mono small">${one.key_id.slice(0, 8)}</span></span>` : html`<a class="node ${one.key_id === key.key_id ? "here" : ""}" aria-current=${one.key_id === key.key_id ? "true" : undefined} href=${keyLink(one.key_id)}>
        <span><b class="mono">${one.key_id.slice(0, 8)}</b> <${Badge} of=${one} /></span><span class="muted small"><${Time} at=${one.create_time} /></span></a>`}</li>`)}</ol>`}<//></div></section>`;
}

function Timeline({ of: key, used }) {
  return html`<section class="card" aria-label="Time line"><header><h2>Time line</h2><a class="small" href=${link(["activity"], { key: key.key_id })}>Recent changes</a></header><div class="card-body">
    <ol class="timeline">${timeline(key, used).map((event) => html`<li class="${event.tone} ${event.ahead ? "ahead" : ""}"><span class="visually-hidden">${event.ahead ? "To come:" : ""}</span>
      <p>${shown(event.what)}${event.by && html`<span class="muted"> by ${shown(event.by)}</span>`}</p><span class="when"><${Time} at=${event.time} /></span></li>`)}</ol></div></section>`;
}

function Facts({ of: key, used }) {
  const fact = (name, value) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`;
  const limits = limitsOf(key);
  const cidrs = key.ip_restriction?.allowed_cidrs;
  const address = used?.last_used_address ?? key.last_used_address;
  return html`<section class="card" aria-label="Details"><header><h2>Details</h2></header><div class="card-body"><dl class="facts">
    ${fact("Actor", html`<a href=${link(["actors", key.actor_id])}>${shown(key.actor_id)}</a>`)}
    ${fact("Scopes", html`<${Tags} items=${key.scopes} most=${20} />`)}
    ${fact("Addresses", cidrs?.length ? html`<${Tags} items=${cidrs} most=${20} />` : "any")}
    ${fact("Limits", limits.length ? limits.map((limit) => html`<div>${shown(limit.quota)} per ${windowWords(limit.window)} <span class="muted small">${limit.name}${limit.scope === "ACTOR" ? ", over all keys of the actor" : ""}</span></div>`) : "none")}
    ${key.credits && fact("Credits", creditWords(key.credits))}
    ${fact("Last used", html`<${Time} at=${used?.last_used_time ?? key.last_used_time} empty=${used ? "never" : "unknown"} />${address ? html` from <span class="mono">${address}</span>` : ""}`)}
    ${used?.count !== undefined && fact("Requests, all counted", count(Number(used.count)))}
    ${fact("Expires", html`<${Time} at=${key.expire_time} />${key.expire_time && html`<span class="muted small"> ${exactTime(key.expire_time)}</span>`}`)}
    ${fact(isImported(key) ? "Imported" : "Issued", html`<${Time} at=${key.create_time} />${key.created_by ? html` by ${shown(key.created_by)}` : ""}`)}
    ${key.visibility === "KEY_VISIBILITY_PUBLIC" && fact("Visibility", "publishable")}
    ${key.metadata && fact("Metadata", html`<pre class="block">${shownJson(key.metadata)}</pre>`)}
  </dl></div></section>`;
}

/** Credits that are left, and how they are refilled. */
function creditWords({ remaining, refill }) {
  const left = `${count(Number(remaining))} left`;
  return refill ? `${left}, filled up to ${count(Number(refill.amount))} every ${refill.every}` : left;
}

function shownJson(metadata) {
  return JSON.stringify(metadata, null, 2).split("\n").map(shown).join("\n");
}

