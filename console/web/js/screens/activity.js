// Changes of keys and actors, by whom, in the order of the log.

import { call } from "../api.js";
import { curl } from "../commands.js";
import { html, useEffect, useLoad, useState } from "../html.js";
import { keyLink, link } from "../router.js";
import { plural } from "../time.js";
import { Commands, Empty, Failure, Loaded, Notice, Time, shown } from "../ui.js";

const PAUSE_MILLISECONDS = 1000;

const TONES = [
  [/revoke|delete|finish/i, "bad"],
  [/suspend/i, "warn"],
  [/issue|resume|import|create/i, "good"],
];

/** Parts of a CloudEvent that the screen shows. */
function eventOf(event) {
  const data = event.data ?? {};
  const [, subject = "", verb = ""] = event.type.split(".");
  const named = (data.changes ?? []).find((change) => change.field === "name");
  return {
    id: event.id,
    time: event.time,
    what: verb === "changed" ? `${subject} changed` : `${verb[0]?.toUpperCase() ?? ""}${verb.slice(1)}`,
    tone: TONES.find(([pattern]) => pattern.test(verb))?.[1] ?? "",
    key: data.key_id,
    name: named?.after ?? named?.before,
    actor: data.actor_id,
    caller: data.caller,
    changes: data.changes ?? [],
    replacedBy: data.replaced_by,
    isErased: data.erased === true,
  };
}

export function Activity({ query }) {
  const wanted = query.get("key") ?? "";
  const [events, setEvents] = useState([]);
  const [follow, setFollow] = useState("");
  const [turn, setTurn] = useState(0);
  const [lost, setLost] = useState(null);
  const first = useLoad((signal) => call("adminListEvents", { query: { page_size: 1000, ...since() }, signal }), []);
  useEffect(() => {
    if (!first.data) return undefined;
    const page = first.data;
    setEvents((page.events ?? []).map(eventOf));
    setFollow(page.next ?? "");
    return undefined;
  }, [first.data]);
  useEffect(() => {
    if (!follow) return undefined;
    const abort = new AbortController();
    call("adminListEvents", { query: { after: follow, wait: "25s" }, signal: abort.signal }).then(
      (page) => {
        if ((page.events ?? []).length) setEvents((before) => [...before, ...page.events.map(eventOf)]);
        // Pause between two reads, for servers that answer at once instead of waiting for a change.
        setTimeout(() => {
          if (abort.signal.aborted) return;
          setFollow(page.next ?? "");
          setTurn((before) => before + 1);
        }, PAUSE_MILLISECONDS);
      },
      (problem) => {
        if (problem.name !== "AbortError") setLost(problem);
      },
    );
    return () => abort.abort();
  }, [follow, turn]);
  const names = new Map(events.filter((event) => event.name).map((event) => [event.key, event.name]));
  const shownEvents = events.filter((event) => !wanted || event.key === wanted).reverse();
  return html`<div class="page">
    <div class="head"><div><h1>Activity</h1><p>${wanted ? html`Changes of key <a class="mono" href=${keyLink(wanted)}>${shown(wanted.slice(0, 8))}</a>. <a href="#/activity">Show all</a>` : "Who changed which key or actor, the newest first. New ones appear by themselves."}</p></div></div>
    <${Chain} />
    ${lost && html`<${Failure} problem=${lost} retry=${() => {
      setLost(null);
      first.reload();
    }} />`}
    ${first.error?.isUnknown ? html`<${Notice} title="This server doesn't list changes yet"><p>Its audit log has them all: <code>audit.file</code> names the file, and <code>talos audit verify FILE</code> checks its chain. Each key's own page has a time line.</p><//>`
      : html`<section class="card" aria-label="Changes"><${Loaded} of=${first} what="changes">${() => (shownEvents.length === 0 ? html`<${Empty} icon="pulse" title="No change yet" />` : html`<div class="card-body"><ol class="timeline">${shownEvents.map((event) => html`<li class=${event.tone} key=${event.id}>
        <div><p><b>${event.what}</b> ${event.key && html`<a class=${names.has(event.key) ? "" : "mono"} href=${keyLink(event.key)}>${shown(names.get(event.key) ?? event.key.slice(0, 8))}</a>`} ${event.actor && html`<span class="muted">of <a href=${link(["actors", event.actor])}>${shown(event.actor)}</a></span>`}
          ${event.caller && html`<span class="muted"> by ${shown(event.caller)}</span>`}</p>
          ${event.replacedBy && html`<p class="muted">Replaced by <a class="mono" href=${keyLink(event.replacedBy)}>${event.replacedBy.slice(0, 8)}</a></p>`}
          ${event.isErased && html`<p class="muted">Erased since, with what this said of it</p>`}<${Difference} of=${event.changes} /></div>
        <span class="when"><${Time} at=${event.time} /></span></li>`)}</ol></div>`)}<//></section>`}
    <${Commands} forms=${{ talos: "talos events tail", curl: curl("adminListEvents", {}) }} />
  </div>`;
}

const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));

/** Reads back a month: older changes are in the audit log. */
function since() {
  return { since: new Date(Date.now() - 30 * 86_400_000).toISOString() };
}

/** Fields before and after. */
function Difference({ of: changes }) {
  if (!changes.length) return null;
  return html`<details class="fold"><summary>${plural(changes.length, "field")} changed</summary><dl class="facts">${changes.map((change) => html`<div><dt>${shown(change.field)}</dt>
    <dd class="mono">${change.before !== undefined && html`<del>${shown(text(change.before))}</del>${" "}`}${change.after !== undefined ? shown(text(change.after)) : change.before === undefined ? "changed" : "unset"}</dd></div>`)}</dl></details>`;
}

/** State of the audit log: writable or not, and changes that others made to it. */
function Chain() {
  const status = useLoad((signal) => call("adminGetStatus", { signal }), []);
  if (status.error) return status.error.isUnknown ? null : html`<${Failure} problem=${status.error} />`;
  if (!status.data) return null;
  const { audit } = status.data;
  if (!audit) return html`<${Notice} title="No audit log is configured"><p>Set <code>audit.file</code>: it records every change with its caller in a chain that shows what is missing. <a href="#/instances">State of this instance</a></p><//>`;
  const outside = Object.values(audit.outside_changes ?? {}).reduce((sum, number) => sum + number, 0);
  if (!audit.writable) return html`<${Notice} tone="bad" title="The audit log can't be written"><p>Changes are refused until it can. Look at the disk and the rights of audit.file.</p><//>`;
  if (outside > 0) return html`<${Notice} tone="bad" title="Somebody else changed the audit log"><p>${plural(outside, "time")}. Run <code>talos audit verify</code> on the file to see what is missing.</p><//>`;
  return html`<${Notice} tone="good" title="The audit log is whole, as far as this process saw"><p>${plural(audit.lines, "line")} written since it started, nothing touched from outside. <code>talos audit verify</code> checks the whole chain.</p><//>`;
}
