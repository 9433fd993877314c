// Changes of keys and actors, by whom, in the order of the log.

import { call } from "../api.js";
import { curl } from "../commands.js";
import { html, useEffect, useLoad, useState } from "../html.js";
import { keyLink, link } from "../router.js";
import { count, plural } from "../time.js";
import { Commands, Empty, Failure, Loading, Notice, Time, shown } from "../ui.js";

/** Pause between two reads, for servers that answer at once instead of waiting for a change. */
const PAUSE_MILLISECONDS = 1000;
/** Longest pause before a read that failed is tried again. */
const MAX_PAUSE_MILLISECONDS = 30_000;
/** Time for which the server waits for a change: less than proxies wait, such as Envoy's 15 s. */
const WAIT = "10s";
/** Maximum number of changes that are kept; older ones give way to newer. */
const MAX_EVENTS = 2000;

/** True if a failure passes by itself: the server or a proxy before it is restarted, or overloaded. */
const isPassing = (problem) => [0, 502, 503, 504].includes(problem.status);

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

const START = { events: [], isRead: false, problem: null };

/** Changes of one key, or of all: what the log has, then what is added to it. */
function useEvents(keyId) {
  const [state, setState] = useState(START);
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    follow(keyId, abort.signal, (change) => abort.signal.aborted || setState(change));
    return () => abort.abort();
  }, [keyId, turn]);
  const restart = () => {
    setState(START);
    setTurn((before) => before + 1);
  };
  return { ...state, restart };
}

/** Reads the log to its end, then waits for changes. Ends with the signal, or a failure that stays. */
async function follow(keyId, signal, setState) {
  let [after, isRead, pause] = ["", false, PAUSE_MILLISECONDS];
  while (!signal.aborted) {
    try {
      const query = { after, wait: isRead && WAIT, page_size: 1000, key_id: keyId };
      const page = await call("adminListEvents", { query, signal });
      const added = (page.events ?? []).map(eventOf);
      isRead ||= !page.has_more;
      setState((before) => ({ events: [...before.events, ...added].slice(-MAX_EVENTS), isRead, problem: null }));
      if (!page.next) return;
      const isFurther = page.next !== after;
      after = page.next;
      pause = PAUSE_MILLISECONDS;
      if (page.has_more && isFurther) continue;
    } catch (problem) {
      if (signal.aborted) return;
      setState((before) => ({ ...before, problem }));
      if (!isPassing(problem)) return;
      pause = Math.min(pause * 2, MAX_PAUSE_MILLISECONDS);
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

export function Activity({ query }) {
  const wanted = query.get("key") ?? "";
  const { events, isRead, problem, restart } = useEvents(wanted);
  const names = new Map(events.filter((event) => event.name).map((event) => [event.key, event.name]));
  // An older server gives the changes of all keys.
  const shownEvents = events.filter((event) => !wanted || [event.key, event.replacedBy].includes(wanted)).reverse();
  return html`<div class="page">
    <div class="head"><div><h1>Activity</h1><p>${wanted ? html`Changes of key <a class="mono" href=${keyLink(wanted)}>${shown(wanted.slice(0, 8))}</a>. <a href="#/activity">Show all</a>` : "Who changed which key or actor, the newest first. New ones appear by themselves."}</p></div></div>
    <${Chain} />
    ${problem && !problem.isUnknown && html`<${Failure} problem=${problem} retry=${restart} isOld=${events.length > 0}>${isPassing(problem) && html`<p>It is tried again every few seconds.</p>`}<//>`}
    ${problem?.isUnknown ? html`<${Notice} title="This server doesn't list changes yet"><p>Its audit log has them all: <code>audit.file</code> names the file, and <code>talos audit verify FILE</code> checks its chain. Each key's own page has a time line.</p><//>`
      : html`<section class="card" aria-label="Changes">${shownEvents.length === 0 ? isRead ? html`<${Empty} icon="pulse" title="No change as far as the log reaches" />` : !problem && html`<${Loading} what="changes" />` : html`<div class="card-body"><ol class="timeline">${shownEvents.map((event) => html`<li class=${event.tone} key=${event.id}>
        <div><p><b>${event.what}</b> ${event.key && html`<a class=${names.has(event.key) ? "" : "mono"} href=${keyLink(event.key)}>${shown(names.get(event.key) ?? event.key.slice(0, 8))}</a>`} ${event.actor && html`<span class="muted">of <a href=${link(["actors", event.actor])}>${shown(event.actor)}</a></span>`}
          ${event.caller && html`<span class="muted"> by ${shown(event.caller)}</span>`}</p>
          ${event.replacedBy && html`<p class="muted">Replaced by <a class="mono" href=${keyLink(event.replacedBy)}>${event.replacedBy.slice(0, 8)}</a></p>`}
          ${event.isErased && html`<p class="muted">Erased since, with what this said of it</p>`}<${Difference} of=${event.changes} /></div>
        <span class="when"><${Time} at=${event.time} /></span></li>`)}</ol></div>`}
        <footer>${events.length === MAX_EVENTS && `The newest ${count(MAX_EVENTS)} are shown. `}The log reaches back an hour, or four times the longest <code>cache.ttl</code> if that is longer. What is older is in the audit log, the file that <code>audit.file</code> names.</footer></section>`}
    <${Commands} forms=${{ talos: "talos events tail", curl: curl("adminListEvents", { query: { key_id: wanted } }) }} />
  </div>`;
}

const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));

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
